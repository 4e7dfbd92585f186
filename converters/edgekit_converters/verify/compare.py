"""Figures of one comparison of outputs without labels: numeric error and agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.verify.scores import class_scores

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class OutputError:
    """Error of one output against the source's.

    `max_abs` in the output's unit, `max_relative` divided by the range of the source's output,
    `snr_db` signal to noise (a constant offset is no signal), `argmax` the share of samples with the
    same largest value; `equal` of whole numbers the share of samples that are the very same.
    """

    max_abs: float
    mean_abs: float
    max_relative: float
    snr_db: float
    argmax: float | None
    equal: float | None = None


def output_error(source: Array, variant: Array, *, activation: str | None) -> OutputError:
    """Compare one output; arrays of the same shape, first axis n. `activation` is that of a classifier's
    output, None where no class is read from it.

    Raises:
        ValueError: other shapes.
    """
    if source.shape != variant.shape:
        raise ValueError(f"shape {variant.shape}, the source gives {source.shape}")
    ours, theirs = variant.astype(np.float64), source.astype(np.float64)
    gap = np.abs(ours - theirs)
    gap = np.where(np.isfinite(gap), gap, np.inf)
    span = float(theirs.max() - theirs.min())
    noise, signal = float((gap**2).mean()), _signal(theirs)
    agree = None
    if activation is not None and source.ndim > 1:
        agree = float((_classes(variant, activation) == _classes(source, activation)).mean())
    return OutputError(
        max_abs=float(gap.max()),
        mean_abs=float(gap.mean()),
        max_relative=float(gap.max()) / span if span > 0 else (0.0 if gap.max() == 0 else float("inf")),
        snr_db=_decibel(signal, noise),
        argmax=agree,
        equal=_equal(variant, source),
    )


def _equal(variant: Array, source: Array) -> float | None:
    if source.dtype.kind not in "biu" or not len(source):
        return None
    return float((variant == source).reshape(len(source), -1).all(axis=1).mean())


def _classes(values: Array, activation: str) -> Array:
    return np.asarray(class_scores(values, activation).argmax(-1))


def _signal(values: Array) -> float:
    """Mean power around the mean: 300 K ± 1 K carries 1 K of signal. Of a constant, its own power."""
    return float(values.var()) or float((values**2).mean())


def _decibel(signal: float, noise: float) -> float:
    """10·log10(signal / noise), held within ±200 so that JSON can carry it."""
    if noise == 0:
        return 200.0
    if signal == 0 or not np.isfinite(noise):
        return -200.0
    return float(np.clip(10 * np.log10(signal / noise), -200, 200))
