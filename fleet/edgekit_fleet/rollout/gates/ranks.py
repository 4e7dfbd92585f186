"""Exact rank statistics for few devices: signed-rank and stratified rank-sum, with their bounds.

Both invert a test: the bounds are order statistics of the Walsh averages (paired) or of the
differences within strata (two samples), the p-values come from the same null distribution, counted
exactly up to `_EXACT` outcomes and by the normal approximation beyond. Ties make the exact figures
conservative. References: Hodges and Lehmann, Ann. Math. Stat. 34 (1963); van Elteren (1960).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

_EXACT = 20_000
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Hodges–Lehmann estimate of a shift with one-sided bounds; infinite where n is too small."""

    estimate: float
    lower: float
    upper: float
    p_above: float


def signed_rank(values: Sequence[float], *, above: float, confidence: float) -> Shift:
    """Centre of paired differences; `p_above` is the p-value of "the centre is at most `above`".

    Args:
        values: one difference a device, at least one.
        above: the limit of the null hypothesis.
        confidence: of each one-sided bound.
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    upper_triangle = np.triu_indices(n)
    walsh = np.sort((data[upper_triangle[0]] + data[upper_triangle[1]]) / 2)
    critical = _signed_rank_critical(n, 1 - confidence)
    beyond = float(np.count_nonzero(walsh > above)) + 0.5 * float(np.count_nonzero(walsh == above))
    return _shift(walsh, critical, _signed_rank_tail(n, beyond))


def rank_sum(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]], *, above: float, confidence: float
) -> Shift:
    """Shift of candidates against controls, compared only within strata.

    Args:
        groups: per stratum the candidates' and the controls' values, both not empty.
        above: the limit of the null hypothesis.
        confidence: of each one-sided bound.
    """
    pieces = [np.subtract.outer(np.asarray(x, float), np.asarray(y, float)).ravel() for x, y in groups]
    differences = np.sort(np.concatenate(pieces))
    sizes = [(len(x), len(y)) for x, y in groups]
    beyond = float(np.count_nonzero(differences > above))
    beyond += 0.5 * float(np.count_nonzero(differences == above))
    return _shift(differences, _rank_sum_critical(sizes, 1 - confidence), _rank_sum_tail(sizes, beyond))


def fisher_more(k1: int, n1: int, k2: int, n2: int) -> float:
    """One-sided Fisher exact p-value of "the first share is not above the second"."""
    slow, everyone = k1 + k2, n1 + n2
    ways = sum(math.comb(slow, k) * math.comb(everyone - slow, n1 - k) for k in range(k1, min(slow, n1) + 1))
    return ways / math.comb(everyone, n1)


def _shift(ordered: Floats, critical: int, p_above: float) -> Shift:
    """`critical` is the number of extreme order statistics the bound leaves out; -1: no bound."""
    return Shift(
        estimate=float(np.median(ordered)),
        lower=float(ordered[critical]) if critical >= 0 else -math.inf,
        upper=float(ordered[-1 - critical]) if critical >= 0 else math.inf,
        p_above=p_above,
    )


def _signed_rank_counts(n: int) -> Floats:
    """Null probabilities of W+ = 0 … n(n+1)/2."""
    row = np.ones(1)
    for rank in range(1, n + 1):
        grown = np.zeros(len(row) + rank)
        grown[: len(row)] += 0.5 * row
        grown[rank:] += 0.5 * row
        row = grown
    return row


def _signed_rank_moments(n: int) -> tuple[float, float]:
    return n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)


def _signed_rank_critical(n: int, alpha: float) -> int:
    if n * (n + 1) // 2 > _EXACT:
        return _normal_critical(*_signed_rank_moments(n), alpha)
    return _critical(_signed_rank_counts(n), alpha)


def _signed_rank_tail(n: int, statistic: float) -> float:
    if n * (n + 1) // 2 > _EXACT:
        return _normal_tail(*_signed_rank_moments(n), statistic)
    return _tail(_signed_rank_counts(n), statistic)


def _rank_sum_counts(sizes: Sequence[tuple[int, int]]) -> Floats:
    """Null probabilities of the summed U statistic: Gaussian binomials, convolved over the strata."""
    total = np.ones(1)
    for m, n in sizes:
        row = np.zeros(m * n + 1)
        row[0] = 1.0
        for i in range(1, min(m, n) + 1):
            _times_one_minus(row, max(m, n) + i)
            _divided_by_one_minus(row, i)
        total = np.convolve(total, row / row.sum())
    return total


def _times_one_minus(row: Floats, power: int) -> None:
    row[power:] -= row[: len(row) - power].copy() if power < len(row) else 0.0


def _divided_by_one_minus(row: Floats, power: int) -> None:
    for start in range(power):
        row[start::power] = np.cumsum(row[start::power])


def _rank_sum_moments(sizes: Sequence[tuple[int, int]]) -> tuple[float, float]:
    variance = sum(m * n * (m + n + 1) / 12 for m, n in sizes)
    return sum(m * n for m, n in sizes) / 2, math.sqrt(variance)


def _rank_sum_exact(sizes: Sequence[tuple[int, int]]) -> bool:
    # The recursion cancels numbers of the size of the binomial: exact in float64 below 2**53 only.
    largest = max(special.comb(m + n, m) for m, n in sizes)
    return bool(sum(m * n for m, n in sizes) <= _EXACT and largest < 2**53)


def _rank_sum_critical(sizes: Sequence[tuple[int, int]], alpha: float) -> int:
    if not _rank_sum_exact(sizes):
        return _normal_critical(*_rank_sum_moments(sizes), alpha)
    return _critical(_rank_sum_counts(sizes), alpha)


def _rank_sum_tail(sizes: Sequence[tuple[int, int]], statistic: float) -> float:
    if not _rank_sum_exact(sizes):
        return _normal_tail(*_rank_sum_moments(sizes), statistic)
    return _tail(_rank_sum_counts(sizes), statistic)


def _critical(probabilities: Floats, alpha: float) -> int:
    """The largest c with P(statistic ≤ c) ≤ alpha, -1 when there is none."""
    return int(np.searchsorted(np.cumsum(probabilities), alpha + 1e-12, side="right")) - 1


def _tail(probabilities: Floats, statistic: float) -> float:
    """P(statistic ≥ the observed one); a half from a tie is rounded against the finding."""
    return min(1.0, float(probabilities[math.floor(statistic) :].sum()))


def _normal_critical(mean: float, deviation: float, alpha: float) -> int:
    return max(-1, math.floor(mean + deviation * float(special.ndtri(alpha)) - 0.5))


def _normal_tail(mean: float, deviation: float, statistic: float) -> float:
    return float(special.ndtr((mean + 0.5 - statistic) / deviation))
