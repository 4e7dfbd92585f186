"""The verdict on a variant: a pure function of the figures, the contract's tolerance and the data's origin.

With labels, the output they belong to: breach when the one-sided 95 % lower bound of a figure's paired
drop exceeds its tolerance, or the point drop does with n ≥ 1,000, or one slice of the data surely loses
more. Every other output: thresholds by precision.
On synthetic inputs, and on calibration samples that are all but the same, a variant is at most
``unverified``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit_converters.verify.compare import OutputError
from edgekit_converters.verify.tasks import Judged

_LARGE = 1000
_MAX_RELATIVE = {"fp32": 1e-4, "fp16": 1e-2}
_SNR_DB, _ARGMAX = 20.0, 0.99
_SAME = {"fp32": 0.999}
"""Share of samples whose whole numbers must be the very same: classes chosen, counts."""
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
    figures: Sequence[Judged],
    origin: str,
    n: int,
    doubts: tuple[str, ...] = (),
) -> Verdict:
    """Decide.

    Args:
        precision: of the variant.
        errors: by output name.
        figures: paired quality where there are labels; the other outputs are judged by their errors.
        origin: of the data: ``validation``, ``calibration`` or ``synthetic``.
        n: number of samples.
        doubts: what is wrong with the calibration data, by code.
    """
    labelled = {item.output for item in figures if item.decides}
    unlabelled = {name: item for name, item in errors.items() if name not in labelled}
    breaches = [text for item in figures if item.decides for text in _figure_breaches(item)]
    breaches += _numeric_breaches(precision, unlabelled)
    breaches += _structural_breaches(precision, errors, skip=unlabelled)
    if any(not math.isfinite(item.max_abs) for item in errors.values()):
        breaches.insert(0, "the variant gives NaN or infinity where the source does not")
    metrics = _metrics(errors, figures)
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
    return Verdict(verdict="pass", why=_good(figures, errors, n), reasons=reasons, metrics=metrics)


_REASONS = {"calibration": "calibration_samples", "synthetic": "synthetic_inputs"}


def _figure_breaches(item: Judged) -> list[str]:
    """What one figure has against the variant; top1 and its kind in points, an error in its unit."""
    allowed = f"{_amount(item, item.tolerance)} allowed"
    verb = "drops" if item.higher else "rises"
    found = []
    if item.lower > item.tolerance:
        sure = f"surely by {_amount(item, item.lower)} (95 %, n={item.n})"
        found.append(f"{item.name} {verb} by {_amount(item, item.drop)}, {sure}; {allowed}")
    elif item.n >= _LARGE and item.drop > item.tolerance:
        found.append(f"{item.name} {verb} by {_amount(item, item.drop)} (n={item.n}); {allowed}")
    for name, (n, drop, lower) in item.slices.items():
        if lower > item.tolerance:
            sure = f"surely by {_amount(item, lower)} (n={n})"
            found.append(f"slice {name}: {item.name} {verb} by {_amount(item, drop)}, {sure}; {allowed}")
    return found


def _amount(item: Judged, value: float) -> str:
    return f"{100 * value:.2f} points" if item.higher else f"{value:.3g}"


def _numeric_breaches(precision: str, errors: Mapping[str, OutputError]) -> list[str]:
    found = []
    limit = _MAX_RELATIVE.get(precision)
    for name, item in errors.items():
        if item.equal is not None and item.equal >= _SAME.get(precision, _ARGMAX):
            continue  # whole numbers that say which: how far the others are off says nothing
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


def _good(figures: Sequence[Judged], errors: Mapping[str, OutputError], n: int) -> str:
    decisive = [item for item in figures if item.decides]
    if not decisive:
        worst = max(item.max_relative for item in errors.values())
        return f"largest error {worst:.2g} of the output's range (n={n})"
    return "; ".join(_said(item) for item in decisive)


def _said(item: Judged) -> str:
    detectable = "" if item.detectable is None else f", detectable {100 * item.detectable:.2f}"
    scale, unit = (100, " points") if item.higher else (1, "")
    worst = item.worst_slice
    return (
        f"{item.name} {item.variant:.4f} against {item.source:.4f} (n={item.n}, "
        f"{'drop' if item.higher else 'rise'} {scale * item.drop:.2f}{unit}, "
        f"95 % bounds [{scale * item.lower:.2f}, {scale * item.upper:.2f}]{detectable})"
        + (f", worst slice {worst[0]}: {scale * worst[1]:.2f}{unit} lost" if worst else "")
    )


def _metrics(errors: Mapping[str, OutputError], figures: Sequence[Judged]) -> dict[str, Any]:
    """JSON-ready figures, rounded to three significant digits so that they are the same everywhere."""
    found: dict[str, Any] = {
        "outputs": {
            name: {
                "max_abs": digits(item.max_abs),
                "mean_abs": digits(item.mean_abs),
                "max_relative": digits(item.max_relative),
                "snr_db": digits(item.snr_db),
                **({} if item.argmax is None else {"argmax_agreement": round(item.argmax, 4)}),
                **({} if item.equal is None else {"equal": round(item.equal, 4)}),
            }
            for name, item in errors.items()
        }
    }
    return {**found, **{item.name: _figure(item) for item in figures}}


def _figure(item: Judged) -> dict[str, Any]:
    counted = {} if item.lost is None else {"lost": item.lost, "gained": item.gained}
    worst = item.worst_slice
    return {
        "source": _rounded(item.source),
        "variant": _rounded(item.variant),
        "n": item.n,
        **counted,
        "drop": _rounded(item.drop),
        "lower95": _rounded(item.lower),
        "upper95": _rounded(item.upper),
        **({} if item.detectable is None else {"detectable": _rounded(item.detectable)}),
        "tolerance": _rounded(item.tolerance),
        "decides": item.decides,
        **({"worst_slice": {"name": worst[0], "drop": _rounded(worst[1])}} if worst else {}),
    }


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def digits(value: float) -> float | None:
    """Three significant digits; None for what JSON cannot carry."""
    return float(f"{value:.3g}") if math.isfinite(value) else None
