"""The latency gate: how much slower devices became, as a ratio of device-level medians.

The device is the unit: each gives the median (option `quantile`) of one stage's histogram, and only
logarithms of ratios are compared. Two designs, chosen by what there is:

1. *paired*: the device's candidate windows against its own incumbent windows, where at least two
   thirds of the devices have both. Exact signed-rank bounds of the centre.
2. *control*: candidates against contemporaneous control devices of the same hardware. Stratified
   exact rank-sum bounds of the shift.

A centre hides a minority that became very slow (and Mann-Whitney alone calls a control and a
candidate that is ten times slower on seven of ten devices alike), so the share of slow devices is
looked at too: FAIL when it is proven above `slow_share` (paired: binomial; control: Fisher's exact
test against the controls), and never PASS while the share seen is above it.

Options: `stage` (default ``total``), `quantile` (0.5), `min_requests` a device (20), `slow_share` (0.2).
`limit` is the ratio allowed, for example 1.25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit_fleet.rollout.gates.base import (
    Aggregate,
    DeviceEvidence,
    Evidence,
    GateResult,
    GateSpec,
    no_evidence,
    percent,
    verdict_of,
)
from edgekit_fleet.rollout.gates.exact import binomial_tail
from edgekit_fleet.rollout.gates.ranks import Shift, fisher_more, rank_sum, signed_rank


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    design: str
    shift: Shift
    slow: int
    n: int
    controls: int
    p_slow: float


def judge_latency(spec: GateSpec, evidence: Evidence) -> GateResult:
    """Judge the ratio of device medians against ``spec.limit``."""
    canaries = {d.device: v for d in evidence.canaries() if (v := _value(d.candidate, spec)) is not None}
    if not canaries:
        return no_evidence(spec, f"no device has {_min_requests(spec)} timed requests yet")
    compared = _paired(spec, evidence, canaries) or _against_control(spec, evidence, canaries)
    if compared is None:
        return no_evidence(
            spec,
            "nothing to compare with: no incumbent on the device, no control of its hardware",
            medians_ms=_medians(canaries),
        )
    return _result(spec, evidence, compared, canaries)


def _result(
    spec: GateSpec, evidence: Evidence, compared: _Comparison, canaries: Mapping[str, float]
) -> GateResult:
    shift, share = compared.shift, compared.slow / compared.n
    allowed = float(spec.options.get("slow_share", 0.2))
    p_fail = min(1.0, 2 * min(shift.p_above, compared.p_slow))
    effect, lower, upper = (math.exp(v) for v in (shift.estimate, shift.lower, shift.upper))
    enough = compared.n >= evidence.min_n and share <= allowed
    bound = f"{upper:.2f}×" if math.isfinite(upper) else "none"
    proven = f", proven above {percent(allowed)}" if 2 * compared.p_slow <= spec.alpha else ""
    slow = f", {compared.slow} slow ({percent(share)}{proven})" if compared.slow else ""
    return GateResult(
        gate=spec.label,
        type=spec.type,
        verdict=verdict_of(upper=upper, limit=spec.limit, p_fail=p_fail, alpha=spec.alpha, enough=enough),
        n=compared.n,
        effect=effect,
        lower=lower,
        upper=upper,
        limit=spec.limit,
        confidence=spec.confidence,
        p_fail=p_fail,
        reason=f"n={compared.n}, {effect:.2f}×, bound {bound}, limit {spec.limit:.2f}×{slow}, "
        f"{compared.design}",
        adverse=effect > spec.limit or share > allowed,
        dry_run=spec.dry_run,
        detail={
            "design": compared.design,
            "controls": compared.controls,
            "slow": compared.slow,
            "medians_ms": _medians(canaries),
        },
    )


def _paired(spec: GateSpec, evidence: Evidence, canaries: Mapping[str, float]) -> _Comparison | None:
    before = {d.device: _value(d.incumbent, spec) for d in evidence.canaries()}
    ratios = [canaries[name] - value for name in canaries if (value := before[name]) is not None]
    if not ratios or 3 * len(ratios) < 2 * len(canaries):
        return None
    limit = math.log(spec.limit)
    slow = sum(ratio > limit for ratio in ratios)
    return _Comparison(
        design="paired",
        shift=signed_rank(ratios, above=limit, confidence=spec.confidence),
        slow=slow,
        n=len(ratios),
        controls=0,
        p_slow=binomial_tail(slow, len(ratios), float(spec.options.get("slow_share", 0.2))),
    )


def _against_control(spec: GateSpec, evidence: Evidence, canaries: Mapping[str, float]) -> _Comparison | None:
    groups = [pair for pair in _groups(spec, evidence, canaries) if all(pair)]
    if not groups:
        return None
    limit = math.log(spec.limit)
    slow, slow_controls = (sum(_slow(pair, side, limit) for pair in groups) for side in (0, 1))
    n, controls = (sum(len(pair[side]) for pair in groups) for side in (0, 1))
    return _Comparison(
        design="control",
        shift=rank_sum(groups, above=limit, confidence=spec.confidence),
        slow=slow,
        n=n,
        controls=controls,
        p_slow=fisher_more(slow, n, slow_controls, controls),
    )


def _groups(
    spec: GateSpec, evidence: Evidence, canaries: Mapping[str, float]
) -> list[tuple[list[float], list[float]]]:
    names = sorted({d.hardware for d in evidence.canaries()})
    controls = [(d.hardware, _value(d.incumbent, spec)) for d in evidence.controls()]
    ours: list[tuple[str, DeviceEvidence]] = [(d.hardware, d) for d in evidence.canaries()]
    return [
        (
            [canaries[d.device] for hardware, d in ours if hardware == name and d.device in canaries],
            [value for hardware, value in controls if hardware == name and value is not None],
        )
        for name in names
    ]


def _slow(pair: tuple[Sequence[float], Sequence[float]], side: int, limit: float) -> int:
    """Devices of one side that are slower than the controls' median by more than the limit."""
    controls = sorted(pair[1])
    middle = (controls[(len(controls) - 1) // 2] + controls[len(controls) // 2]) / 2
    return sum(value - middle > limit for value in pair[side])


def _min_requests(spec: GateSpec) -> int:
    return int(spec.options.get("min_requests", 20))


def _value(aggregate: Aggregate, spec: GateSpec) -> float | None:
    """The logarithm of the device's latency in ms, None with too few requests."""
    histogram = aggregate.latency.get(str(spec.options.get("stage", "total")))
    if histogram is None or histogram.count < _min_requests(spec):
        return None
    value = histogram.quantile(float(spec.options.get("quantile", 0.5)))
    return math.log(value) if value else None


def _medians(canaries: Mapping[str, float]) -> dict[str, float]:
    return {name: round(math.exp(value), 4) for name, value in sorted(canaries.items())[:50]}
