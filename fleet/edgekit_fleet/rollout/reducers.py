"""Documents into state, whatever the order and however often they come. Pure.

Every rule is a function of what is stored and what arrived that says whether it is news:

* presence: the newest session counts; within a session, ending is later than being born;
* reported: only a (boot_id, seq) above the last one; what a step means for a rollout is
  `states.heard`, where terminal steps are sticky;
* telemetry: a (boot_id, seq) is stored once; `advance` says what may be acknowledged.

Unknown devices, foreign topics and malformed documents are counted by reason in `Dropped` and leave no trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgekit.documents import (
    Ack,
    BenchResult,
    DeviceFacts,
    Event,
    Presence,
    ProbeReport,
    Reported,
    Window,
    parse_telemetry,
)
from edgekit.documents.bench import MAX_RESULT
from edgekit.errors import DocumentError
from edgekit.topics import parse_device_topic

AnyDocument = Presence | DeviceFacts | Reported | Event | Window | ProbeReport | BenchResult
_ALSO_LIMIT = 1000


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A document with the device whose topic it came on; `slot` for telemetry, the cid for a result."""

    device: str
    document: AnyDocument
    slot: str | None = None


@dataclass(kw_only=True)
class Dropped:
    """What was dropped, by reason: malformed, foreign, unknown_device, stale, duplicate."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, number: int = 1) -> None:
        """Count."""
        self.counts[reason] += number


def read_message(tenant: str, topic: str, payload: bytes) -> Arrived | str:
    """Take a message apart, or say why it is dropped (``foreign`` or ``malformed``)."""
    try:
        place = parse_device_topic(topic)
    except DocumentError:
        return "foreign"
    if place.tenant != tenant:
        return "foreign"
    try:
        document = _parse(place.leaf, payload)
    except DocumentError:
        return "malformed"
    if document is None:
        return "foreign"
    if isinstance(document, Window | ProbeReport) and document.slot != place.slot:
        return "foreign"
    if isinstance(document, BenchResult) and document.cid != place.slot:
        return "foreign"
    return Arrived(device=place.device, document=document, slot=place.slot)


def _parse(leaf: str, payload: bytes) -> AnyDocument | None:
    match leaf:
        case "presence":
            return Presence.parse(payload)
        case "profile":
            return DeviceFacts.parse(payload)
        case "reported":
            return Reported.parse(payload)
        case "ev":
            return Event.parse(payload)
        case "tm":
            return parse_telemetry(payload)
        case "res":
            if len(payload) > MAX_RESULT:
                raise DocumentError(f"more than {MAX_RESULT} bytes", where="bench_result")
            return BenchResult.parse(payload)
    return None


def newer_presence(last: tuple[int, str] | None, new: Presence) -> bool:
    """Whether a presence counts, `last` being the (session, state) known."""
    if last is None:
        return True
    session, state = last
    return (new.session, new.state != "online") > (session, state != "online")


def newer_message(last: tuple[str, int] | None, boot_id: str, seq: int) -> bool:
    """Whether (boot_id, seq) is above the last one seen."""
    return last is None or (boot_id, seq) > last


@dataclass(frozen=True, kw_only=True)
class Received:
    """What is stored of one boot of one device: every seq up to `seq`, and those in `also`."""

    boot_id: str
    seq: int = -1
    also: frozenset[int] = frozenset()

    def has(self, seq: int) -> bool:
        """Whether this seq is stored, or was given up by the device."""
        return seq <= self.seq or seq in self.also

    def ack(self) -> Ack:
        """The acknowledgement to publish once this is committed."""
        return Ack(boot_id=self.boot_id, seq=self.seq, also=tuple(sorted(self.also)[:_ALSO_LIMIT]))


def advance(received: Received, stored: Iterable[tuple[int, int]]) -> Received:
    """Take in newly stored messages, as (seq, oldest): `oldest` is the lowest seq the device still has.

    Order-free and idempotent: the outcome depends on the set of messages only.
    """
    also, floor = set(received.also), received.seq
    for seq, oldest in stored:
        also.add(seq)
        floor = max(floor, min(oldest, seq) - 1)
    while floor + 1 in also:
        floor += 1
    return Received(boot_id=received.boot_id, seq=floor, also=frozenset(seq for seq in also if seq > floor))
