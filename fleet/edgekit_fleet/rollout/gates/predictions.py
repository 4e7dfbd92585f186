"""The prediction-distribution gate: do the answers still look like the incumbent's?

The device is the unit and frames are never pooled: each device gives one vector of shares (its
counts with half a count added to every bin), and only these vectors are averaged. Canaries are
compared within their hardware with, in this order: contemporaneous control devices; their own
incumbent windows; the package's reference distribution. The effect is the population stability
index (`metric = "psi"`) or the Jensen–Shannon divergence in bits (``jsd``) of the mean vectors,
less what device-to-device scatter alone would give. Bounds come from a residual bootstrap over
whole devices, seeded from the evidence, so a replay gives the same figures.

Scatter is learned from all devices' residuals (both arms, all hardwares). With fewer than
`_SCATTER` of them there are no bounds: the effect, less what counting alone would give, is
evidence, neither PASS nor FAIL. Below
`min_devices` canaries (and, with controls, controls) PASS is not given, FAIL is when it is proven.

Options: `metric` (psi), `min_devices` (3), `min_requests` (30) predictions a device, `of`
(``predictions``, ``confidence`` or ``inputs``), `output` (default: the tensor that moved most).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.digest import canonical_json, sha256_hex
from edgekit_fleet.rollout.gates.base import (
    Aggregate,
    DeviceEvidence,
    Evidence,
    GateResult,
    GateSpec,
    no_evidence,
    verdict_of,
)

_DRAWS = 999
_SCATTER = 4
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Stratum:
    """Share vectors of one hardware: canaries (c, bins), what they are compared with (k, bins)."""

    canaries: Floats
    others: Floats
    design: str
    counted: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Effect:
    tensor: str
    design: str
    canaries: int
    others: int
    effect: float
    lower: float
    upper: float
    p_fail: float
    shares: Mapping[str, list[float]]


def judge_predictions(spec: GateSpec, evidence: Evidence) -> GateResult:
    """Judge the distance between canaries' and controls' answers against ``spec.limit``."""
    tensors = _tensors(spec, evidence)
    found = [e for name in tensors if (e := _effect(spec, evidence, name)) is not None]
    if not found:
        return no_evidence(spec, f"no device has {_min_requests(spec)} counted answers to compare yet")
    worst = min(found, key=lambda e: (e.p_fail, -e.effect))
    p_fail = min(1.0, worst.p_fail * len(found))
    needed = int(spec.options.get("min_devices", 3))
    few = worst.canaries < needed or (worst.design == "control" and worst.others < needed)
    enough = not few and worst.canaries >= evidence.min_n and worst.design != "incumbent"
    upper = max(e.upper for e in found)
    return GateResult(
        gate=spec.label,
        type=spec.type,
        verdict=verdict_of(upper=upper, limit=spec.limit, p_fail=p_fail, alpha=spec.alpha, enough=enough),
        n=worst.canaries,
        effect=worst.effect,
        lower=worst.lower,
        upper=upper,
        limit=spec.limit,
        confidence=spec.confidence,
        p_fail=p_fail,
        reason=_reason(spec, worst, needed if few else 0),
        adverse=worst.effect > spec.limit,
        dry_run=spec.dry_run,
        detail={
            "tensor": worst.tensor,
            "design": worst.design,
            "others": worst.others,
            "shares": dict(worst.shares),
        },
    )


def _reason(spec: GateSpec, worst: _Effect, needed: int) -> str:
    metric = str(spec.options.get("metric", "psi")).upper()
    bound = f"{worst.upper:.2f}" if math.isfinite(worst.upper) else "none"
    against = {
        "control": f"{worst.others} controls",
        "incumbent": "own earlier answers",
        "reference": "the package's reference",
    }
    few = f", fewer than {needed} devices" if needed else ""
    return (
        f"n={worst.canaries}, {metric} {worst.effect:.2f} against {against[worst.design]}, "
        f"bound {bound}, limit {spec.limit:.2f}{few}"
    )


def _min_requests(spec: GateSpec) -> int:
    return int(spec.options.get("min_requests", 30))


def _bins(aggregate: Aggregate, spec: GateSpec) -> Mapping[str, tuple[int, ...]]:
    kind = str(spec.options.get("of", "predictions"))
    return {
        "predictions": aggregate.predictions,
        "confidence": aggregate.confidence,
        "inputs": aggregate.inputs,
    }[kind]


def _tensors(spec: GateSpec, evidence: Evidence) -> list[str]:
    chosen = spec.options.get("output")
    return (
        [str(chosen)]
        if chosen
        else sorted({name for d in evidence.canaries() for name in _bins(d.candidate, spec)})
    )


def _vector(aggregate: Aggregate, spec: GateSpec, tensor: str, size: int) -> Floats | None:
    counts = _bins(aggregate, spec).get(tensor)
    if counts is None or len(counts) != size or sum(counts) < _min_requests(spec):
        return None
    return _shares(counts)


def _shares(counts: tuple[int, ...]) -> Floats:
    smoothed = np.asarray(counts, dtype=np.float64) + 0.5
    return np.asarray(smoothed / smoothed.sum())


def _effect(spec: GateSpec, evidence: Evidence, tensor: str) -> _Effect | None:
    strata = _strata(spec, evidence, tensor)
    if not strata:
        return None
    canaries, others = _means(strata)
    raw = float(_distance(spec, canaries, others))
    effect, lower, upper, p_fail = _bootstrap(spec, strata, raw)
    designs = [s.design for s in strata]
    return _Effect(
        tensor=tensor,
        design=next(d for d in ("reference", "incumbent", "control") if d in designs),
        canaries=sum(len(s.canaries) for s in strata),
        others=sum(len(s.others) for s in strata if s.design == "control"),
        effect=effect,
        lower=lower,
        upper=upper,
        p_fail=p_fail,
        shares={
            "canary": [round(float(v), 4) for v in canaries],
            "other": [round(float(v), 4) for v in others],
        },
    )


def _strata(spec: GateSpec, evidence: Evidence, tensor: str) -> list[_Stratum]:
    size = max((len(_bins(d.candidate, spec).get(tensor, ())) for d in evidence.canaries()), default=0)
    found: list[_Stratum] = []
    for hardware in sorted({d.hardware for d in evidence.canaries()}):
        ours = [d for d in evidence.canaries() if d.hardware == hardware]
        controls = [d for d in evidence.controls() if d.hardware == hardware]
        if stratum := _stratum(spec, evidence, tensor, size, ours, controls):
            found.append(stratum)
    return found


def _stratum(
    spec: GateSpec,
    evidence: Evidence,
    tensor: str,
    size: int,
    ours: list[DeviceEvidence],
    controls: list[DeviceEvidence],
) -> _Stratum | None:
    pairs = [
        (v, _vector(d.incumbent, spec, tensor, size), sum(_bins(d.candidate, spec)[tensor]))
        for d in ours
        if (v := _vector(d.candidate, spec, tensor, size)) is not None
    ]
    if not pairs:
        return None
    canaries = np.stack([v for v, _, _ in pairs])
    counted = tuple(total for _, _, total in pairs)
    against = [v for d in controls if (v := _vector(d.incumbent, spec, tensor, size)) is not None]
    if against:
        return _Stratum(canaries=canaries, others=np.stack(against), design="control", counted=counted)
    both = [(v, own, total) for v, own, total in pairs if own is not None]
    if both:
        return _Stratum(
            canaries=np.stack([v for v, _, _ in both]),
            others=np.stack([own for _, own, _ in both]),
            design="incumbent",
            counted=tuple(total for _, _, total in both),
        )
    reference = evidence.reference.get(_reference_kind(spec), {}).get(tensor)
    if reference is None or len(reference.counts) != size:
        return None
    return _Stratum(
        canaries=canaries, others=_shares(reference.counts)[None, :], design="reference", counted=counted
    )


def _reference_kind(spec: GateSpec) -> str:
    kind = str(spec.options.get("of", "predictions"))
    return "outputs" if kind == "predictions" else kind


def _means(strata: list[_Stratum]) -> tuple[Floats, Floats]:
    """Mean vectors of both sides; a stratum weighs as much as it has canaries on either side."""
    weights = np.asarray([len(s.canaries) for s in strata], dtype=np.float64)
    canaries = np.stack([s.canaries.mean(axis=0) for s in strata])
    others = np.stack([s.others.mean(axis=0) for s in strata])
    return (
        np.asarray(np.average(canaries, axis=0, weights=weights)),
        np.asarray(np.average(others, axis=0, weights=weights)),
    )


def _distance(spec: GateSpec, p: Floats, q: Floats) -> Floats:
    """Distance of distributions along the last axis."""
    if spec.options.get("metric", "psi") == "psi":
        return np.asarray(np.sum((p - q) * np.log(p / q), axis=-1))
    middle = (p + q) / 2
    return np.asarray(np.sum(p * np.log2(p / middle) + q * np.log2(q / middle), axis=-1) / 2)


def _residuals(strata: list[_Stratum]) -> Floats:
    """Deviations of devices from their group's mean, scaled for the mean's own freedom."""
    groups = [s.canaries for s in strata] + [s.others for s in strata if s.design != "reference"]
    pieces = [
        (group - group.mean(axis=0)) * math.sqrt(len(group) / (len(group) - 1))
        for group in groups
        if len(group) > 1
    ]
    return np.concatenate(pieces) if pieces else np.empty((0, strata[0].canaries.shape[1]))


def _bootstrap(spec: GateSpec, strata: list[_Stratum], raw: float) -> tuple[float, float, float, float]:
    """Effect less the noise floor, its lower and upper bound, p-value of "within the limit"."""
    residuals = _residuals(strata)
    if len(residuals) < _SCATTER:
        return max(0.0, raw - _counting_noise(strata)), -math.inf, math.inf, 1.0
    generator = np.random.default_rng(_seed(spec, strata))
    means = _means(strata)
    joint = (means[0] + means[1]) / 2
    ours, theirs = _draws(generator, strata, residuals)
    noise = _distance(spec, _valid(joint + ours), _valid(joint + theirs))
    shifted = _distance(spec, _valid(means[0] + ours), _valid(means[1] + theirs))
    floor = float(noise.mean())
    effect = max(0.0, raw - floor)
    # The drawn effects carry the noise twice: once in the means observed, once in the draw.
    corrected = shifted - 2 * floor
    lower, upper = np.quantile(corrected, [spec.alpha, spec.confidence])
    inside = float(np.count_nonzero(corrected <= spec.limit))
    return effect, max(0.0, float(lower)), max(effect, float(upper)), (inside + 1) / (_DRAWS + 1)


def _counting_noise(strata: list[_Stratum]) -> float:
    """The distance to expect from counting alone, were all frames independent: (bins − 1) / n."""
    counts = [total for s in strata for total in s.counted]
    size = strata[0].canaries.shape[1]
    return float((size - 1) * sum(1 / total for total in counts) / len(counts) ** 2)


def _draws(
    generator: np.random.Generator, strata: list[_Stratum], residuals: Floats
) -> tuple[Floats, Floats]:
    """Deviations (draws, bins) of both overall means when every device is drawn anew."""
    weights = np.asarray([len(s.canaries) for s in strata], dtype=np.float64)
    weights /= weights.sum()
    ours = np.zeros((_DRAWS, residuals.shape[1]))
    theirs = np.zeros_like(ours)
    for weight, stratum in zip(weights, strata, strict=True):
        ours += weight * _mean_of(generator, len(stratum.canaries), residuals)
        if stratum.design != "reference":
            theirs += weight * _mean_of(generator, len(stratum.others), residuals)
    return ours, theirs


def _mean_of(generator: np.random.Generator, devices: int, residuals: Floats) -> Floats:
    """Means (draws, bins) of so many residuals drawn with replacement."""
    chances = np.full(len(residuals), 1 / len(residuals))
    return np.asarray(generator.multinomial(devices, chances, size=_DRAWS) @ residuals / devices)


def _valid(shares: Floats) -> Floats:
    """Drawn vectors made distributions again."""
    clipped = np.clip(shares, 1e-4, None)
    return np.asarray(clipped / clipped.sum(axis=-1, keepdims=True))


def _seed(spec: GateSpec, strata: list[_Stratum]) -> int:
    body = [[np.round(s.canaries, 9).tolist(), np.round(s.others, 9).tolist()] for s in strata]
    return int(sha256_hex(canonical_json([spec.to_dict(), body]))[:16], 16)
