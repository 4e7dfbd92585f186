"""The verdict on a variant: a pure function of the figures, the contract's tolerance and the data's origin.

With labels, the output they belong to: breach when the one-sided 95 % lower bound of the paired drop
exceeds the tolerance, or the point drop does with n ≥ 1,000. Every other output: thresholds by precision.
On synthetic inputs, and on calibration samples that are all but the same, a variant is at most
``unverified``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit_converters.verify.compare import LabelResult, OutputError

DEFAULT_TOLERANCE = 0.01
"""Loss of top-1 that is accepted when the contract names none: one point."""

_LARGE = 1000
_MAX_RELATIVE = {"fp32": 1e-4, "fp16": 1e-2}
_SNR_DB, _ARGMAX = 20.0, 0.99
_EMPTY = ("constant_samples", "duplicate_samples")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`verdict` is ``pass``, ``unverified`` or ``breach``; `why` says it in one sentence."""

    verdict: str
    why: str
    reasons: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)


def judge(
    *,
    precision: str,
    errors: Mapping[str, OutputError],
    labels: LabelResult | None,
    labelled: str | None,
    tolerance: float,
    origin: str,
    n: int,
    doubts: tuple[str, ...] = (),
) -> Verdict:
    """Decide.

    Args:
        precision: of the variant.
        errors: by output name.
        labels: paired accuracy where there are labels.
        labelled: name of the output that they judge; every other one is judged by its figures.
        tolerance: accepted drop of top-1, as a share.
        origin: of the data: ``validation``, ``calibration`` or ``synthetic``.
        n: number of samples.
        doubts: what is wrong with the calibration data, by code.
    """
    unlabelled = {name: item for name, item in errors.items() if labels is None or name != labelled}
    breaches = _label_breaches(labels, tolerance) if labels else []
    breaches += _numeric_breaches(precision, unlabelled)
    breaches += _structural_breaches(precision, errors, skip=unlabelled)
    if any(not math.isfinite(item.max_abs) for item in errors.values()):
        breaches.insert(0, "the variant gives NaN or infinity where the source does not")
    metrics = _metrics(errors, labels, tolerance)
    reasons = () if origin == "validation" else (_REASONS[origin],)
    if breaches and origin == "synthetic" and precision not in _MAX_RELATIVE:
        # Random inputs say little about quantized values: neither proven good nor proven bad.
        why = "on random inputs: " + "; ".join(breaches)
        return Verdict(verdict="unverified", why=why, reasons=(*reasons, "below_threshold"), metrics=metrics)
    if breaches:
        return Verdict(verdict="breach", why="; ".join(breaches), reasons=reasons, metrics=metrics)
    if origin == "synthetic":
        why = "compared on random inputs only; give --validation data for a verdict"
        return Verdict(verdict="unverified", why=why, reasons=reasons, metrics=metrics)
    empty = tuple(code for code in doubts if code in _EMPTY)
    if origin == "calibration" and empty:
        why = "compared on calibration samples that are all but the same; give --validation data"
        return Verdict(verdict="unverified", why=why, reasons=(*reasons, *empty), metrics=metrics)
    return Verdict(verdict="pass", why=_good(labels, errors, n), reasons=reasons, metrics=metrics)


_REASONS = {"calibration": "calibration_samples", "synthetic": "synthetic_inputs"}


def _label_breaches(labels: LabelResult, tolerance: float) -> list[str]:
    drop = labels.drop
    if drop.lower > tolerance:
        sure = f"surely by {100 * drop.lower:.2f} (95 %, n={drop.n})"
        return [f"top1 drops by {100 * drop.drop:.2f} points, {sure}; {100 * tolerance:.2f} are allowed"]
    if drop.n >= _LARGE and drop.drop > tolerance:
        return [f"top1 drops by {100 * drop.drop:.2f} points (n={drop.n}); {100 * tolerance:.2f} are allowed"]
    return []


def _numeric_breaches(precision: str, errors: Mapping[str, OutputError]) -> list[str]:
    found = []
    limit = _MAX_RELATIVE.get(precision)
    for name, item in errors.items():
        if limit is not None and item.max_relative > limit:
            found.append(
                f"{name}: error {item.max_relative:.2g} of the range, {limit:g} allowed for {precision}"
            )
        if limit is None and item.snr_db < _SNR_DB:
            found.append(f"{name}: signal to noise {item.snr_db:.1f} dB, {_SNR_DB:g} needed")
        if limit is None and item.argmax is not None and item.argmax < _ARGMAX:
            found.append(f"{name}: the same class in {item.argmax:.4f} of samples, {_ARGMAX} needed")
    return found


def _structural_breaches(
    precision: str, errors: Mapping[str, OutputError], *, skip: Mapping[str, OutputError]
) -> list[str]:
    """Float variants that compute something else than the source, even where the labels do not mind."""
    return [
        f"{name}: signal to noise {item.snr_db:.1f} dB in {precision}: it computes something else"
        for name, item in errors.items()
        if precision in _MAX_RELATIVE and name not in skip and item.snr_db < _SNR_DB
    ]


def _good(labels: LabelResult | None, errors: Mapping[str, OutputError], n: int) -> str:
    if labels is None:
        worst = max(item.max_relative for item in errors.values())
        return f"largest error {worst:.2g} of the output's range (n={n})"
    drop = labels.drop
    return (
        f"top1 {labels.variant:.4f} against {labels.source:.4f} (n={drop.n}, drop {100 * drop.drop:.2f} "
        f"points, 95 % bounds [{100 * drop.lower:.2f}, {100 * drop.upper:.2f}], "
        f"detectable {100 * drop.detectable:.2f})"
    )


def _metrics(
    errors: Mapping[str, OutputError], labels: LabelResult | None, tolerance: float
) -> dict[str, Any]:
    """JSON-ready figures, rounded to three significant digits so that they are the same everywhere."""
    found: dict[str, Any] = {
        "outputs": {
            name: {
                "max_abs": digits(item.max_abs),
                "mean_abs": digits(item.mean_abs),
                "max_relative": digits(item.max_relative),
                "snr_db": digits(item.snr_db),
                **({} if item.argmax is None else {"argmax_agreement": round(item.argmax, 4)}),
            }
            for name, item in errors.items()
        }
    }
    if labels:
        drop = labels.drop
        found["top1"] = {
            "source": round(labels.source, 4),
            "variant": round(labels.variant, 4),
            "n": drop.n,
            "lost": drop.lost,
            "gained": drop.gained,
            "drop": round(drop.drop, 4),
            "lower95": round(drop.lower, 4),
            "upper95": round(drop.upper, 4),
            "detectable": round(drop.detectable, 4),
            "tolerance": tolerance,
        }
        worst = labels.worst_slice
        if worst:
            found["top1"]["worst_slice"] = {"name": worst[0], "drop": round(worst[1], 4)}
    return found


def digits(value: float) -> float | None:
    """Three significant digits; None for what JSON cannot carry."""
    return float(f"{value:.3g}") if math.isfinite(value) else None
