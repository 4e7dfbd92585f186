"""What the page is told: one frozen document per device, rollout, slot and telemetry window.

Pure: documents in, documents out. Every string in them may come from a device or a model and is
untrusted; the page shows it as text only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.documents import DeviceStep, ProbeReport, Reason, Window

_LIMIT = 600


@dataclass(frozen=True, kw_only=True)
class View:
    """Base: JSON-ready by `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ServiceView(View):
    """The service itself: `broker` names what carries MQTT, `connected` whether it does now."""

    tenant: str
    broker: str
    connected: bool
    version: str
    started: float


@dataclass(frozen=True, kw_only=True)
class SlotView(View):
    """A slot: class labels by output name, and its ground-truth probes' policy."""

    name: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    policy: str | None = None
    min_accuracy: float | None = None
    items: int | None = None


@dataclass(frozen=True, kw_only=True)
class ReasonView(View):
    """Why something ended as it did."""

    code: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ActiveView(View):
    """What one slot of a device really runs."""

    slot: str
    release: str
    variant: str
    digest: str
    runtime: str = ""
    backend: str = ""
    since: float = 0.0
    previous: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeView(View):
    """Probes as the device ran them; `right` is a string of ``1`` and ``0``, item by item."""

    slot: str
    probe: str
    release: str
    variant: str
    n: int
    right: str
    limit: float
    passed: bool
    policy: str
    at: float
    baseline: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceView(View):
    """One device. `status` is the one word its cell is coloured by (see `device_status`); `seen`, its last
    sign of life, is given only of a device that is not online."""

    id: str
    hardware: str
    status: str
    presence: str
    step: str
    percent: int = 0
    ring: str | None = None
    rollout: str | None = None
    machine: str = ""
    agent: str = ""
    seen: float | None = None
    clock_ok: bool = True
    reason: ReasonView | None = None
    slots: tuple[ActiveView, ...] = ()
    probes: tuple[ProbeView, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    runtimes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GateView(View):
    """One gate's newest verdict with the reason in words; `lower` and `upper` are one-sided bounds."""

    name: str
    type: str
    verdict: str
    reason: str
    stratum: str = ""
    n: int = 0
    effect: float | None = None
    lower: float | None = None
    upper: float | None = None
    limit: float | None = None
    at: float | None = None


@dataclass(frozen=True, kw_only=True)
class RingView(View):
    """One ring: how many devices, how far (`back` were taken back), from when to when, and its gates."""

    index: int
    name: str
    state: str
    members: int = 0
    good: int = 0
    bad: int = 0
    back: int = 0
    opened: float | None = None
    soak_until: float | None = None
    closed: float | None = None
    gates: tuple[GateView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RolloutView(View):
    """One rollout with its rings; `reason` says why it stands where it stands."""

    id: str
    release: str
    slot: str
    state: str
    previous: str | None = None
    reason: str = ""
    created: float | None = None
    ended: float | None = None
    rings: tuple[RingView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PointView(View):
    """One telemetry window as the plots need it. Latencies in ms, quantiles of the stage ``total``."""

    device: str
    slot: str
    at: float
    seconds: float
    release: str
    variant: str
    requests: int
    model_errors: int
    client_errors: int
    p50: float | None
    p99: float | None
    predictions: Mapping[str, tuple[int, ...]]
    resources: Mapping[str, float]
    trial: bool = False


@dataclass(frozen=True, kw_only=True)
class LogView(View):
    """One line of what happened."""

    at: float
    kind: str
    text: str
    device: str | None = None
    tone: str = "plain"


def device_status(presence: str, step: DeviceStep) -> str:
    """The word a device's cell is coloured by: ``offline``, ``bad``, ``busy``, ``good`` or ``idle``."""
    if presence in ("lost", "offline"):
        return "offline"
    if step in (DeviceStep.FAILED, DeviceStep.REVERTED, DeviceStep.REJECTED):
        return "bad"
    if step.good:
        return "good"
    if step.terminal or step is DeviceStep.IDLE:
        return "idle"
    return "busy"


def reason_view(reason: Reason | None) -> ReasonView | None:
    """A reason, cut to a length a page can show."""
    return ReasonView(code=reason.code[:_LIMIT], text=reason.text[:_LIMIT]) if reason else None


def point_view(device: str, window: Window) -> PointView:
    """A window of `device` as a point of the plots."""
    total = window.latency.get("total") or window.latency.get("infer")
    errors = window.errors.items()
    return PointView(
        device=device,
        slot=window.slot,
        at=window.at,
        seconds=window.seconds,
        release=window.release,
        variant=window.variant,
        requests=window.requests,
        model_errors=sum(count for kind, count in errors if kind.startswith("model:")),
        client_errors=sum(count for kind, count in errors if kind.startswith("client:")),
        p50=_rounded(total.quantile(0.5) if total else None),
        p99=_rounded(total.quantile(0.99) if total else None),
        predictions={name: bins.counts for name, bins in window.predictions.items()},
        resources=dict(window.resources),
        trial=window.trial,
    )


def probe_view(report: ProbeReport) -> ProbeView:
    """A probe report as the drill-down shows it."""
    return ProbeView(
        slot=report.slot,
        probe=report.probe,
        release=report.release,
        variant=report.variant,
        n=report.n,
        right=report.right[:4096],
        limit=report.limit,
        passed=report.passed,
        policy=report.policy.value,
        at=report.at,
        baseline=report.baseline[:4096] if report.baseline is not None else None,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
