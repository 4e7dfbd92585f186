"""What a device says of itself: facts, presence, steps and the truth about its slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from edgekit.documents.base import Document, read_texts
from edgekit.wire import Fields


class DeviceStep(str, Enum):
    """Where a device stands in a deployment (DESIGN §4's order). The value is what travels."""

    IDLE = "idle"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    PREPARING = "preparing"
    PROBING = "probing"
    TRIAL = "trial"
    COMMITTED = "committed"
    CURRENT = "already_current"
    REJECTED = "rejected"
    FAILED = "failed"
    REVERTED = "reverted"
    SUPERSEDED = "superseded"

    @property
    def terminal(self) -> bool:
        """Whether the device has finished with this attempt."""
        return self in _TERMINAL

    @property
    def good(self) -> bool:
        """Whether the device now runs what was asked for."""
        return self in (DeviceStep.COMMITTED, DeviceStep.CURRENT)


_TERMINAL = frozenset(
    {
        DeviceStep.COMMITTED,
        DeviceStep.CURRENT,
        DeviceStep.REJECTED,
        DeviceStep.FAILED,
        DeviceStep.REVERTED,
        DeviceStep.SUPERSEDED,
    }
)


def _step(source: Fields, name: str) -> DeviceStep:
    text = source.text(name)
    try:
        return DeviceStep(text)
    except ValueError as error:
        raise source.fail(name, f"{text!r} is not a device step") from error


@dataclass(frozen=True, kw_only=True)
class Reason(Document):
    """Why a step ended as it did. `retryable` false means: the same attempt would fail again."""

    kind: ClassVar[str] = "reason"
    code: str
    text: str
    retryable: bool = False

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "code": source.text("code"),
            "text": source.text("text"),
            "retryable": source.flag("retryable", False),
        }


@dataclass(frozen=True, kw_only=True)
class DeviceFacts(Document):
    """What a device truly is and can run (topic ``d/<id>/profile``, retained, and in enrolment).

    `machine` is ``platform.machine()``, `model` the board's own string, `runtimes` name → version of
    those that are installed and enabled, `profiles` the matching hardware profiles, most specific
    first (the first is the device's stratum), `precisions` the order the owner prefers (empty: the
    profile's),
    `labels` the owner's words for rings.
    """

    kind: ClassVar[str] = "profile"
    machine: str
    agent: str
    python: str
    os: str
    model: str | None = None
    cpu_count: int = 1
    cpu_features: tuple[str, ...] = ()
    memory_mb: int = 0
    runtimes: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def hardware(self) -> str:
        """The device's stratum: its most specific profile, or ``unknown``."""
        return self.profiles[0] if self.profiles else "unknown"

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "machine": source.text("machine"),
            "agent": source.text("agent"),
            "python": source.text("python"),
            "os": source.text("os"),
            "model": source.maybe_text("model"),
            "cpu_count": source.integer("cpu_count", 1),
            "cpu_features": source.texts("cpu_features"),
            "memory_mb": source.integer("memory_mb", 0),
            "runtimes": read_texts(source, "runtimes"),
            "profiles": source.texts("profiles"),
            "precisions": source.texts("precisions"),
            "labels": read_texts(source, "labels"),
        }


@dataclass(frozen=True, kw_only=True)
class Presence(Document):
    """Birth and last will (``d/<id>/presence``, retained). `session` counts connects and is
    persisted, so an old will that arrives late is recognised: only the newest session counts."""

    kind: ClassVar[str] = "presence"
    state: str
    session: int
    boot_id: str
    agent: str
    at: float

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        state = source.text("state")
        if state not in ("online", "offline", "lost"):
            raise source.fail("state", "online, offline or lost was expected")
        return {
            "state": state,
            "session": source.integer("session"),
            "boot_id": source.text("boot_id"),
            "agent": source.text("agent"),
            "at": source.number("at"),
        }


@dataclass(frozen=True, kw_only=True)
class SlotState(Document):
    """What a slot really runs; `previous` is what a revert would go back to."""

    kind: ClassVar[str] = "slot_state"
    release: str
    variant: str
    digest: str
    package: str
    runtime: str = ""
    backend: str = ""
    since: float = 0.0
    previous: str | None = None

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "release": source.text("release"),
            "variant": source.text("variant"),
            "digest": source.text("digest"),
            "package": source.text("package"),
            "runtime": source.text("runtime", ""),
            "backend": source.text("backend", ""),
            "since": source.number("since", 0.0),
            "previous": source.maybe_text("previous"),
        }


@dataclass(frozen=True, kw_only=True)
class Reported(Document):
    """The whole truth about a device (``d/<id>/reported``, retained). Reducers drop any document
    whose (boot_id, seq) is not above the last one seen; terminal steps are sticky per attempt."""

    kind: ClassVar[str] = "reported"
    boot_id: str
    seq: int
    gen: int
    deployment: str
    attempt: int
    step: DeviceStep
    at: float
    slot: str = ""
    percent: int = 0
    slots: Mapping[str, SlotState] = field(default_factory=dict)
    reason: Reason | None = None
    clock_ok: bool = True

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "boot_id": source.text("boot_id"),
            "seq": source.integer("seq"),
            "gen": source.integer("gen"),
            "deployment": source.text("deployment"),
            "attempt": source.integer("attempt"),
            "step": _step(source, "step"),
            "at": source.number("at"),
            "slot": source.text("slot", ""),
            "percent": source.integer("percent", 0, high=100),
            "slots": source.members("slots", SlotState.read),
            "reason": source.maybe("reason", Reason.read),
            "clock_ok": source.flag("clock_ok", True),
        }


@dataclass(frozen=True, kw_only=True)
class Event(Document):
    """One transition, for history only (``d/<id>/ev``, not retained)."""

    kind: ClassVar[str] = "event"
    boot_id: str
    seq: int
    at: float
    deployment: str
    step: DeviceStep
    slot: str = ""
    reason: Reason | None = None

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "boot_id": source.text("boot_id"),
            "seq": source.integer("seq"),
            "at": source.number("at"),
            "deployment": source.text("deployment"),
            "step": _step(source, "step"),
            "slot": source.text("slot", ""),
            "reason": source.maybe("reason", Reason.read),
        }
