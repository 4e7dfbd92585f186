"""What a gate is given and what it answers.

A gate is a pure function of the ring's `Evidence` and its `GateSpec`. It states an effect (larger is
worse), one-sided bounds of it and the p-value of "the effect lies within the limit"; the verdict
follows from these by `verdict_of`, the same rule for every gate: PASS when the upper bound lies
inside the limit, FAIL when the lower bound lies outside, else INCONCLUSIVE. Correction for several
gates and looks is the judge's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgekit.documents import ProbeReport
from edgekit.package import Distribution
from edgekit.sketches import LatencyHistogram

GATE_TYPES = ("failures", "latency", "probes", "predictions")


class Verdict(StrEnum):
    """What a gate or a ring's judgement says."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Arm(StrEnum):
    """Which side of the comparison a device is on."""

    CANARY = "canary"
    CONTROL = "control"


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """One gate of a ring as the plan has it: `limit` is the largest effect allowed, in the gate's unit.

    `options` are the gate's own, checked and completed by the plan reader. A `dry_run` gate is
    computed and shown but never counts.
    """

    type: str
    limit: float
    name: str = ""
    confidence: float = 0.95
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The gate's name: its own, else its type."""
        return self.name or self.type

    @property
    def alpha(self) -> float:
        """Error allowed to each one-sided bound."""
        return 1 - self.confidence

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "type": self.type,
            "name": self.label,
            "limit": self.limit,
            "confidence": self.confidence,
            "dry_run": self.dry_run,
            **self.options,
        }


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """Windows of one device and one variant, merged: counts, and latency per stage in milliseconds."""

    windows: int = 0
    requests: int = 0
    model_errors: int = 0
    client_errors: int = 0
    latency: Mapping[str, LatencyHistogram] = field(default_factory=dict)
    predictions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    confidence: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def error_share(self) -> float:
        """Share of requests that failed through the model."""
        return self.model_errors / self.requests if self.requests else float(self.model_errors > 0)


@dataclass(frozen=True, kw_only=True)
class DeviceEvidence:
    """All that is known of one device for a ring's judgement.

    `counted` devices stand in the denominators (counting rules), `failed` and `good` are their
    outcome, neither while it is pending. `candidate` are its windows on the release under test,
    `incumbent` those on what it ran before (for a control device: what it runs now, over the same
    period as the canaries). `truth` is its newest ground-truth probe report on the candidate.
    """

    device: str
    hardware: str
    arm: Arm = Arm.CANARY
    counted: bool = True
    good: bool = False
    failed: bool = False
    reason: str = ""
    variant: str = ""
    candidate: Aggregate = Aggregate()
    incumbent: Aggregate = Aggregate()
    truth: ProbeReport | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a ring is judged on. `reference` are the package's distributions (`of` → tensor → bins)."""

    devices: tuple[DeviceEvidence, ...] = ()
    reference: Mapping[str, Mapping[str, Distribution]] = field(default_factory=dict)
    min_accuracy: float | None = None
    min_n: int = 1

    def canaries(self) -> tuple[DeviceEvidence, ...]:
        """Devices of the ring that count."""
        return tuple(d for d in self.devices if d.arm is Arm.CANARY and d.counted)

    def controls(self) -> tuple[DeviceEvidence, ...]:
        """Devices that were not offered the release, over the same period."""
        return tuple(d for d in self.devices if d.arm is Arm.CONTROL)


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """A gate's answer. Larger effects are worse; a bound that the data cannot give is infinite.

    `n` counts devices (for probes: items of the device that decides). `p_fail` is the one-sided
    p-value of "the effect lies within the limit". `adverse` says that the point estimate itself lies
    outside. `detail` holds figures for the page and for `explain`.
    """

    gate: str
    type: str
    verdict: Verdict
    n: int
    effect: float
    lower: float
    upper: float
    limit: float
    confidence: float
    p_fail: float
    reason: str
    adverse: bool = False
    dry_run: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; infinite bounds become null, figures are rounded to six digits."""
        return {
            "gate": self.gate,
            "type": self.type,
            "verdict": self.verdict.value,
            "n": self.n,
            "effect": finite(self.effect),
            "interval": [finite(self.lower), finite(self.upper)],
            "limit": self.limit,
            "confidence": self.confidence,
            "p_fail": finite(self.p_fail),
            "adverse": self.adverse,
            "dry_run": self.dry_run,
            "reason": self.reason,
            "why": self.why,
            "detail": dict(self.detail),
        }

    @property
    def why(self) -> str:
        """One line for people."""
        words = {
            Verdict.PASS: "passed",
            Verdict.FAIL: "failed",
            Verdict.INCONCLUSIVE: "not proven",
        }
        prefix = "dry run: " if self.dry_run else ""
        return f"{prefix}{words[self.verdict]} ({self.reason})"


def finite(value: float) -> float | None:
    """`value` rounded to six significant digits, None when it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def verdict_of(*, upper: float, limit: float, p_fail: float, alpha: float, enough: bool = True) -> Verdict:
    """The rule all gates share; FAIL is looked at first, and PASS needs `enough` devices."""
    if p_fail <= alpha:
        return Verdict.FAIL
    if enough and upper <= limit:
        return Verdict.PASS
    return Verdict.INCONCLUSIVE


def no_evidence(spec: GateSpec, reason: str, **detail: Any) -> GateResult:
    """The answer of a gate that has nothing to go by."""
    return GateResult(
        gate=spec.label,
        type=spec.type,
        verdict=Verdict.INCONCLUSIVE,
        n=0,
        effect=math.nan,
        lower=-math.inf,
        upper=math.inf,
        limit=spec.limit,
        confidence=spec.confidence,
        p_fail=1.0,
        reason=f"n=0, {reason}",
        dry_run=spec.dry_run,
        detail=detail,
    )


def percent(share: float) -> str:
    """A share for people: ``77.6 %``, ``0.02 %``."""
    value = 100 * share
    return f"{value:.2g} %" if 0 < abs(value) < 1 else f"{value:.1f} %"


def strata(devices: tuple[DeviceEvidence, ...]) -> dict[str, tuple[DeviceEvidence, ...]]:
    """Devices by hardware, in the order of their names."""
    names = sorted({device.hardware for device in devices})
    return {name: tuple(d for d in devices if d.hardware == name) for name in names}
