"""The probe gate: is the model still right, on labelled items, on the device's own runtime.

Items are compared on each device, candidate against incumbent, paired (exact McNemar and
Clopper–Pearson on the discordant items); items of different devices are never pooled, because the
same items give the same answers on equal hardware. One device is decisive: FAIL when one device's
drop is proven above `limit` (Bonferroni over devices), or when its accuracy on exactly these signed
items is below the slot's minimum. PASS when every reporting device is proven within; without an
incumbent when every accuracy is at least the minimum and its lower bound is not more than `limit`
below.

Options: `tolerate` (default 0): the share of devices running the same variant that may miss the
minimum, for fleets with known bad hardware; `min_accuracy`: stricter than the slot's own.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from edgekit.documents import ProbeReport
from edgekit_fleet.rollout.gates.base import (
    DeviceEvidence,
    Evidence,
    GateResult,
    GateSpec,
    no_evidence,
    percent,
    verdict_of,
)
from edgekit_fleet.rollout.gates.exact import binomial_lower, binomial_tail, binomial_upper, paired_drop


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What one device's report says; `floor` is the accuracy asked for."""

    device: DeviceEvidence
    report: ProbeReport
    floor: float
    drop: float
    lower: float
    upper: float
    p_fail: float
    paired: bool

    @property
    def missed(self) -> bool:
        return self.report.accuracy < self.floor


def judge_probes(spec: GateSpec, evidence: Evidence) -> GateResult:
    """Judge the drop in accuracy (a share) against ``spec.limit``, and accuracy against the minimum."""
    findings = tuple(_finding(spec, evidence, d, d.truth) for d in evidence.canaries() if d.truth)
    if not findings:
        return no_evidence(spec, "no device has reported the slot's truth probes yet")
    worst = max(findings, key=lambda f: (_decisive(f, findings, spec), -f.p_fail, f.upper, f.drop))
    missed = tuple(f for f in findings if _decisive(f, findings, spec))
    p_fail = 0.0 if missed else min(1.0, min(f.p_fail for f in findings) * len(findings))
    every = all(f.upper <= spec.limit and not f.missed for f in findings)
    enough = every and len(findings) >= evidence.min_n
    upper = max(f.upper for f in findings)
    return GateResult(
        gate=spec.label,
        type=spec.type,
        verdict=verdict_of(upper=upper, limit=spec.limit, p_fail=p_fail, alpha=spec.alpha, enough=enough),
        n=worst.report.n,
        effect=worst.drop,
        lower=worst.lower,
        upper=upper,
        limit=spec.limit,
        confidence=spec.confidence,
        p_fail=p_fail,
        reason=_reason(worst, findings, missed),
        adverse=worst.drop > spec.limit or any(f.missed for f in findings),
        dry_run=spec.dry_run,
        detail={
            "devices": len(findings),
            "missed": sorted(f.device.device for f in findings if f.missed),
            "accuracy": {f.device.device: round(f.report.accuracy, 4) for f in findings[:50]},
            "paired": worst.paired,
        },
    )


def _finding(spec: GateSpec, evidence: Evidence, device: DeviceEvidence, report: ProbeReport) -> _Finding:
    floors = (evidence.min_accuracy, spec.options.get("min_accuracy"), report.limit)
    floor = max(float(value) for value in floors if value is not None)
    right = report.right.count("1")
    paired = report.baseline is not None and report.n > 0
    if paired:
        drop, lower, upper, p_fail = _paired(report, spec)
    else:
        # Without an incumbent the minimum stands in for it: how far below it may the accuracy lie?
        accuracy = report.accuracy
        drop = floor - accuracy
        lower = floor - binomial_upper(right, report.n, spec.confidence) if report.n else -math.inf
        upper = floor - binomial_lower(right, report.n, spec.confidence) if report.n else math.inf
        p_fail = _p_below(report.n - right, report.n, 1 - floor + spec.limit)
    return _Finding(
        device=device,
        report=report,
        floor=floor,
        drop=drop,
        lower=lower,
        upper=upper,
        p_fail=p_fail,
        paired=paired,
    )


def _paired(report: ProbeReport, spec: GateSpec) -> tuple[float, float, float, float]:
    """Drop, its bounds and the p-value of "the drop is at most the limit"."""
    pairs = Counter(zip(report.baseline or "", report.right, strict=True))
    lost, gained = pairs[("1", "0")], pairs[("0", "1")]
    found = paired_drop(lost, gained, report.n, spec.confidence)
    return found.drop, found.lower, found.upper, _p_drop(lost, gained, report.n, spec.limit)


def _p_drop(lost: int, gained: int, n: int, limit: float) -> float:
    """p-value of "drop ≤ limit": given m discordant items, drop = m (2θ − 1) / n with θ = P(lost)."""
    m = lost + gained
    theta = min(1.0, (limit * n / m + 1) / 2) if m else 1.0
    return binomial_tail(lost, m, theta) if m and theta < 1 else 1.0


def _p_below(wrong: int, n: int, allowed: float) -> float:
    return binomial_tail(wrong, n, min(1.0, max(0.0, allowed))) if n and wrong else 1.0


def _decisive(finding: _Finding, findings: tuple[_Finding, ...], spec: GateSpec) -> bool:
    """Whether a miss of the minimum counts against the variant, not just against one device."""
    if not finding.missed:
        return False
    same = [f for f in findings if f.report.digest == finding.report.digest]
    return sum(f.missed for f in same) / len(same) > float(spec.options.get("tolerate", 0.0))


def _reason(worst: _Finding, findings: tuple[_Finding, ...], missed: tuple[_Finding, ...]) -> str:
    report = worst.report
    place = f"{worst.device.device} {report.variant}".strip()
    scale = f"n={report.n} items on {len(findings)} device{'s' if len(findings) > 1 else ''}"
    against = f", drop {percent(worst.drop)}, bound {percent(worst.upper)}" if worst.paired else ""
    below = f" on {place}; {len(missed)} below {percent(worst.floor)}" if missed else ""
    return f"{scale}, accuracy {percent(report.accuracy)}{against}{below}"
