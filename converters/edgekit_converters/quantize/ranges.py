"""Ranges out of the stored calibration: where to clip each tensor. Pure functions of statistics.

`minmax` clips nothing; `percentile` cuts a share of the values off both ends; `mse` takes the range
with the least squared error of rounding and clipping; `entropy` the one whose quantized histogram
tells least apart from the true one (Kullback-Leibler). The last two search over the ends of a
2,048-bin histogram: with as many bins as levels, as onnxruntime's default has, nothing would ever clip.
Zero stays within every range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgekit_converters.quantize.statistics import BINS, Statistics, Tensor

Range = tuple[float, float]
LEVELS = 256
_SHARE = 1e-5
_STEP = BINS // 32
_KEEP = BINS // 8
"""Searches leave at least this many bins."""


class Ranges(Mapping[str, Range]):
    """The range of every tensor by one of `METHODS`, found when it is asked for."""

    def __init__(self, found: Statistics, method: str) -> None:
        self._tensors = found.tensors
        self._choose = METHODS[method]
        self._known: dict[str, Range] = {}

    def __getitem__(self, name: str) -> Range:
        if name not in self._known:
            found = self._tensors[name]
            chosen = minmax(found) if found.histogram is None else self._choose(found)
            self._known[name] = _with_zero(chosen)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


def minmax(found: Tensor) -> Range:
    """Everything that was seen."""
    return found.low, found.high


def percentile(found: Tensor, share: float = _SHARE) -> Range:
    """Without the `share` of the values at either end."""
    edges, total = found.edges, np.cumsum(found.histogram)
    cut = share * total[-1]
    first = int(np.searchsorted(total, cut, side="right"))
    last = int(np.searchsorted(total, total[-1] - cut, side="left"))
    return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])


def mse(found: Tensor) -> Range:
    """The least sum of squared clipping errors and of a twelfth of the squared step for the rest."""
    counts, edges = np.asarray(found.histogram, np.float64), found.edges
    centres = (edges[:-1] + edges[1:]) / 2
    moments = [np.concatenate([[0.0], np.cumsum(counts * centres**power)]) for power in range(3)]

    def error(first: int, last: int) -> float:
        low, high = edges[first], edges[last]
        below = _clipped(moments, 0, first, low)
        above = _clipped(moments, last, BINS, high)
        step = (max(high, 0.0) - min(low, 0.0)) / (LEVELS - 1)
        inside = moments[0][last] - moments[0][first]
        return float(below + above + inside * step**2 / 12)

    return _search(edges, error)


def entropy(found: Tensor) -> Range:
    """The least divergence of the histogram from its form on `LEVELS` levels."""
    counts, edges = np.asarray(found.histogram, np.float64).copy(), found.edges
    # Zeros lie exactly on every grid: what a Relu cut off says nothing about the rest.
    zero = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, BINS - 1))
    beside = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < BINS]
    counts[zero] = min(counts[zero], max(beside))

    def divergence(first: int, last: int) -> float:
        kept = counts[first:last].copy()
        kept[0] += counts[:first].sum()
        kept[-1] += counts[last:].sum()
        return _divergence(kept, counts[first:last])

    return _search(edges, divergence)


METHODS: Mapping[str, Callable[[Tensor], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def _clipped(moments: list[Any], first: int, last: int, edge: float) -> float:
    """Sum of squared distances from `edge` of what lies in bins [first, last)."""
    n, s, q = (item[last] - item[first] for item in moments)
    return float(q - 2 * edge * s + edge * edge * n)


def _search(edges: Any, cost: Callable[[int, int], float]) -> Range:
    """Take bins off whichever end costs less, as long as there are enough; the best range met."""
    first, last = 0, BINS
    best, chosen = cost(first, last), (first, last)
    while last - first - _STEP >= _KEEP:
        left = cost(first + _STEP, last) if edges[first + _STEP] <= 0 or edges[0] > 0 else np.inf
        right = cost(first, last - _STEP) if edges[last - _STEP] >= 0 or edges[-1] < 0 else np.inf
        if not np.isfinite(min(left, right)):
            break
        first, last = (first + _STEP, last) if left < right else (first, last - _STEP)
        if min(left, right) < best:
            best, chosen = min(left, right), (first, last)
    return float(edges[chosen[0]]), float(edges[chosen[1]])


def _divergence(reference: Any, counts: Any) -> float:
    """Kullback-Leibler divergence of `reference` from `counts` spread over `LEVELS` levels."""
    level = np.arange(len(counts)) * LEVELS // len(counts)
    filled = counts > 0
    members = np.bincount(level, weights=filled, minlength=LEVELS)
    sums = np.bincount(level, weights=counts, minlength=LEVELS)
    spread = np.where(filled, (sums / np.maximum(members, 1))[level], 0.0)
    # A bin that only the clipped values fill has nothing to compare with: it costs what it holds.
    p, q = reference / max(reference.sum(), 1.0), spread / max(spread.sum(), 1.0)
    both = (p > 0) & (q > 0)
    missing = float(p[(p > 0) & (q <= 0)].sum())
    return float((p[both] * np.log(p[both] / q[both])).sum() + missing * np.log(LEVELS))


def _with_zero(found: Range) -> Range:
    return min(found[0], 0.0), max(found[1], 0.0)
