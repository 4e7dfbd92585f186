"""Telemetry records and their acknowledgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edgekit.documents.base import Document, read_numbers
from edgekit.documents.desired import ProbePolicy, read_policy
from edgekit.errors import DocumentError
from edgekit.sketches import Bins, LatencyHistogram
from edgekit.wire import Fields, parse_object


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
            "resources": read_numbers(source, "resources"),
            "runtime": source.text("runtime", ""),
            "backend": source.text("backend", ""),
            "trial": source.flag("trial", False),
        }


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
            "policy": read_policy(source, "policy"),
            "detail": read_numbers(source, "detail"),
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
