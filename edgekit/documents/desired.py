"""What the service asks of a device, always signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from edgekit.digest import canonical_json
from edgekit.documents.base import Document
from edgekit.wire import Fields


class ProbePolicy(str, Enum):
    """What a miss of the slot's ground-truth probes does on the device."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


def read_policy(source: Fields, name: str) -> ProbePolicy:
    """A probe policy, `ENFORCE` when absent."""
    text = source.text(name, ProbePolicy.ENFORCE.value)
    try:
        return ProbePolicy(text)
    except ValueError as error:
        raise source.fail(name, "enforce or observe was expected") from error


@dataclass(frozen=True, kw_only=True)
class TruthProbes(Document):
    """The slot's ground-truth probes a device must run: TUF target, content, limit and policy."""

    kind: ClassVar[str] = "truth"
    target: str
    sha256: str
    bytes: int
    min_accuracy: float
    policy: ProbePolicy = ProbePolicy.ENFORCE

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "target": source.text("target"),
            "sha256": source.text("sha256"),
            "bytes": source.integer("bytes"),
            "min_accuracy": source.number("min_accuracy"),
            "policy": read_policy(source, "policy"),
        }


@dataclass(frozen=True, kw_only=True)
class SlotDesire(Document):
    """What one slot shall run. `package` and `digest` are ``sha256:…`` of package and variant."""

    kind: ClassVar[str] = "slot"
    release: str
    package: str
    variant: str
    digest: str
    truth: TruthProbes | None = None
    trial_seconds: float = 5.0
    allow_unverified: bool = False

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "release": source.text("release"),
            "package": source.text("package"),
            "variant": source.text("variant"),
            "digest": source.text("digest"),
            "truth": source.maybe("truth", TruthProbes.read),
            "trial_seconds": source.number("trial_seconds", 5.0),
            "allow_unverified": source.flag("allow_unverified", False),
        }


@dataclass(frozen=True, kw_only=True)
class Desired(Document):
    """The whole desired state of one device (``d/<id>/desired``, retained, always in an `Envelope`).

    Bound to `device` and `hardware`; `gen` only grows, also for a rollback to an older release; an
    agent never accepts a `gen` below the one it has persisted. `deployment` and `attempt` name the
    rollout's try, per slot in `slots`.
    """

    kind: ClassVar[str] = "desired"
    device: str
    hardware: str
    gen: int
    issued: float
    deployment: str
    attempt: int = 1
    slots: Mapping[str, SlotDesire] = field(default_factory=dict)

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "device": source.text("device"),
            "hardware": source.text("hardware"),
            "gen": source.integer("gen", low=1),
            "issued": source.number("issued"),
            "deployment": source.text("deployment"),
            "attempt": source.integer("attempt", 1, low=1),
            "slots": source.members("slots", SlotDesire.read),
        }


@dataclass(frozen=True, kw_only=True)
class Signature(Document):
    """One signature: `keyid` as TUF computes it, `sig` lower-case hex."""

    kind: ClassVar[str] = "signature"
    keyid: str
    sig: str

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {"keyid": source.text("keyid"), "sig": source.text("sig")}


@dataclass(frozen=True, kw_only=True)
class Envelope(Document):
    """A signed document. Signatures are over the canonical JSON of `signed` as it was received."""

    kind: ClassVar[str] = "envelope"
    signed: Mapping[str, Any]
    signatures: tuple[Signature, ...]

    def payload(self) -> bytes:
        """The bytes the signatures cover."""
        return canonical_json(self.signed)

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        if not source.has("signed"):
            raise source.fail("signed", "a signed document was expected; this one is not signed")
        return {
            "signed": source.mapping("signed"),
            "signatures": source.objects("signatures", Signature.read),
        }
