"""Every document that travels over MQTT or between agent and service, as a frozen dataclass.

Each has `schema`, is written with `to_bytes` (canonical JSON) and read with `parse`, which raises
`DocumentError` naming the field. Members added by a newer version are kept in `extra` and written
back. Golden files of all of them lie in ``tests/contract``. Times are seconds since the epoch, UTC,
as the sender's clock had them; durations are in seconds unless the name says otherwise.

A `boot_id` is ``<boot counter, 8 digits>-<random>``: comparing two as strings tells which boot is
the later one. (boot_id, seq) names a message of a device for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar, TypeVar

from edgekit.digest import canonical_json
from edgekit.errors import DocumentError
from edgekit.package import _prune
from edgekit.sketches import Bins, LatencyHistogram
from edgekit.wire import Fields, parse_object

SCHEMA = 1
D = TypeVar("D", bound="Document")


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


class ProbePolicy(str, Enum):
    """What a miss of the slot's ground-truth probes does on the device."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


@dataclass(frozen=True, kw_only=True)
class Document:
    """Base of all documents: JSON in, JSON out, unknown members kept."""

    kind: ClassVar[str] = "document"
    schema: int = SCHEMA
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; members that are None are left out."""
        body = {item.name: _plain(getattr(self, item.name)) for item in fields(self) if item.name != "extra"}
        return {**self.extra, **{name: value for name, value in body.items() if value is not None}}

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.to_dict())

    @classmethod
    def parse(cls: type[D], data: bytes) -> D:
        """Read untrusted bytes.

        Raises:
            DocumentError: not JSON, a member missing or of the wrong type, a schema too new.
        """
        return cls.from_dict(parse_object(data, where=cls.kind))

    @classmethod
    def from_dict(cls: type[D], value: Mapping[str, Any]) -> D:
        """`parse` for JSON that is parsed already."""
        return cls.read(Fields(value, where=cls.kind))

    @classmethod
    def read(cls: type[D], source: Fields) -> D:
        """Read from an object that is part of another document."""
        schema = source.integer("schema", SCHEMA)
        if schema > SCHEMA:
            raise source.fail("schema", f"{schema} is newer than {SCHEMA}, the newest known here")
        members = cls._members(source)
        return cls(**members, schema=schema, extra=source.rest())

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        raise NotImplementedError(cls)


def _plain(value: object) -> object:
    if isinstance(value, Document | Bins | LatencyHistogram):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return _prune(value)


def _step(source: Fields, name: str) -> DeviceStep:
    text = source.text(name)
    try:
        return DeviceStep(text)
    except ValueError as error:
        raise source.fail(name, f"{text!r} is not a device step") from error


def _policy(source: Fields, name: str) -> ProbePolicy:
    text = source.text(name, ProbePolicy.ENFORCE.value)
    try:
        return ProbePolicy(text)
    except ValueError as error:
        raise source.fail(name, "enforce or observe was expected") from error


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
            "runtimes": _texts(source, "runtimes"),
            "profiles": source.texts("profiles"),
            "precisions": source.texts("precisions"),
            "labels": _texts(source, "labels"),
        }


def _texts(source: Fields, name: str) -> dict[str, str]:
    members = source.mapping(name)
    if not all(isinstance(value, str) for value in members.values()):
        raise source.fail(name, "an object of strings was expected")
    return members


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
            "policy": _policy(source, "policy"),
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


@dataclass(frozen=True, kw_only=True)
class Telemetry(Document):
    """What `Window` and `ProbeReport` share (``d/<id>/tm/<slot>``, QoS 1, not retained).

    Stored in the agent's outbox until the service acknowledges (boot_id, seq). `oldest` is the
    lowest seq of this boot still in the outbox: everything below it was acknowledged or, when the
    bounded outbox
    overflowed, dropped (`dropped` counts those, of all boots).
    """

    record: str = "telemetry"
    slot: str
    boot_id: str
    seq: int
    oldest: int
    release: str
    variant: str
    digest: str
    deployment: str
    at: float
    dropped: int = 0

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        record = source.text("record")
        if record != cls.kind:
            raise source.fail("record", f"{cls.kind} was expected, not {record!r}")
        return {
            "record": record,
            "slot": source.text("slot"),
            "boot_id": source.text("boot_id"),
            "seq": source.integer("seq"),
            "oldest": source.integer("oldest"),
            "release": source.text("release"),
            "variant": source.text("variant"),
            "digest": source.text("digest"),
            "deployment": source.text("deployment"),
            "at": source.number("at"),
            "dropped": source.integer("dropped", 0),
        }


@dataclass(frozen=True, kw_only=True)
class Window(Telemetry):
    """Mergeable counters of one slot over one period that ended at `at` and lasted `seconds`.

    `errors` counts by kind, ``client:<kind>`` (the caller's fault, never held against a model) and
    ``model:<kind>``; `latency` per stage (``preprocess``, ``infer``, ``postprocess``, ``total``) in
    milliseconds; `predictions`, `confidence` and `inputs` by tensor name in the package's bins;
    `resources` gauges
    such as ``rss_mb``, ``cpu_percent``, ``temperature_c``. `trial` marks windows of a trial.
    """

    kind: ClassVar[str] = "window"
    record: str = "window"
    seconds: float
    requests: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, LatencyHistogram] = field(default_factory=dict)
    predictions: Mapping[str, Bins] = field(default_factory=dict)
    confidence: Mapping[str, Bins] = field(default_factory=dict)
    inputs: Mapping[str, Bins] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime: str = ""
    backend: str = ""
    trial: bool = False

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            **super()._members(source),
            "seconds": source.number("seconds"),
            "requests": source.integer("requests", 0),
            "errors": source.counts("errors"),
            "latency": source.members("latency", LatencyHistogram.read),
            "predictions": source.members("predictions", Bins.read),
            "confidence": source.members("confidence", Bins.read),
            "inputs": source.members("inputs", Bins.read),
            "resources": _numbers(source, "resources"),
            "runtime": source.text("runtime", ""),
            "backend": source.text("backend", ""),
            "trial": source.flag("trial", False),
        }


def _numbers(source: Fields, name: str) -> dict[str, float]:
    members = source.mapping(name)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in members.values()):
        raise source.fail(name, "an object of numbers was expected")
    return members


@dataclass(frozen=True, kw_only=True)
class ProbeReport(Telemetry):
    """Result of probes run on the device before traffic.

    `probe` is ``package`` or ``truth``; `target` names the probe set (TUF target, empty for package
    probes); `n` items, `right` a string of n characters ``1`` (right) or ``0``, item by item in the
    set's order; `baseline` the same for the incumbent on the same device, or None without one;
    `limit` the accuracy or tolerance asked for, `passed` the device's own judgement, `detail` figures
    such as ``max_abs``.
    """

    kind: ClassVar[str] = "probe"
    record: str = "probe"
    probe: str
    target: str = ""
    n: int
    right: str
    baseline: str | None = None
    baseline_digest: str | None = None
    limit: float
    passed: bool
    policy: ProbePolicy = ProbePolicy.ENFORCE
    detail: Mapping[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of items that are right."""
        return self.right.count("1") / self.n if self.n else 0.0

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        n = source.integer("n")
        return {
            **super()._members(source),
            "probe": source.text("probe"),
            "target": source.text("target", ""),
            "n": n,
            "right": _bits(source, "right", n),
            "baseline": _bits(source, "baseline", n) if source.has("baseline") else None,
            "baseline_digest": source.maybe_text("baseline_digest"),
            "limit": source.number("limit"),
            "passed": source.flag("passed"),
            "policy": _policy(source, "policy"),
            "detail": _numbers(source, "detail"),
        }


def _bits(source: Fields, name: str, n: int) -> str:
    text = source.text(name)
    if len(text) != n or set(text) - {"0", "1"}:
        raise source.fail(name, f"{n} characters 0 or 1 were expected")
    return text


def parse_telemetry(data: bytes) -> Window | ProbeReport:
    """Read a document of ``d/<id>/tm/<slot>``.

    Raises:
        DocumentError: neither a window nor a probe report, or malformed.
    """
    value = parse_object(data, where="telemetry")
    record = value.get("record")
    if record == Window.kind:
        return Window.from_dict(value)
    if record == ProbeReport.kind:
        return ProbeReport.from_dict(value)
    raise DocumentError(f"window or probe was expected, not {record!r}", where="telemetry.record")


@dataclass(frozen=True, kw_only=True)
class Ack(Document):
    """The service has committed telemetry of one boot (``d/<id>/ack``, retained).

    Every seq of `boot_id` up to and including `seq` is stored (or was dropped by the device), and
    so are those in `also`. The agent deletes exactly these from its outbox.
    """

    kind: ClassVar[str] = "ack"
    boot_id: str
    seq: int
    also: tuple[int, ...] = ()

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "boot_id": source.text("boot_id"),
            "seq": source.integer("seq", low=-1),
            "also": source.integers("also"),
        }


@dataclass(frozen=True, kw_only=True)
class ControllerState(Document):
    """Birth and last will of the service (``ctl/state``, retained). `epoch` grows with each start."""

    kind: ClassVar[str] = "controller"
    state: str
    epoch: int
    at: float

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {"state": source.text("state"), "epoch": source.integer("epoch"), "at": source.number("at")}


@dataclass(frozen=True, kw_only=True)
class EnrolRequest(Document):
    """``POST /v1/enrol``: a one-time token, the public half of the key made on the device
    (Ed25519, 64 hex digits), `proof` = hex signature over ``edgekit-enrol:<token>`` by that key, and
    the facts."""

    kind: ClassVar[str] = "enrol"
    token: str
    public_key: str
    proof: str
    facts: DeviceFacts
    name: str = ""

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "token": source.text("token"),
            "public_key": source.text("public_key"),
            "proof": source.text("proof"),
            "facts": source.maybe("facts", DeviceFacts.read) or _missing(source, "facts"),
            "name": source.text("name", ""),
        }


def _missing(source: Fields, name: str) -> DeviceFacts:
    raise source.fail(name, "is missing")


@dataclass(frozen=True, kw_only=True)
class EnrolAnswer(Document):
    """What a device gets for its token. `root` is the trusted TUF root metadata (JSON text), whose
    sha256 must be the one the token carries; `url` the service's address as the device reached it."""

    kind: ClassVar[str] = "enrolled"
    device: str
    tenant: str
    hardware: str
    url: str
    mqtt_host: str
    mqtt_port: int
    username: str
    password: str
    root: str

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "device": source.text("device"),
            "tenant": source.text("tenant"),
            "hardware": source.text("hardware"),
            "url": source.text("url"),
            "mqtt_host": source.text("mqtt_host"),
            "mqtt_port": source.integer("mqtt_port", low=1, high=65_535),
            "username": source.text("username"),
            "password": source.text("password"),
            "root": source.text("root", limit=1 << 20),
        }
