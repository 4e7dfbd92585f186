"""Exact statistics on paired right/wrong items: the one test the compiler's verdict and the probe gate share.

Both compare a candidate with a baseline on the *same* items. Of n items only the discordant ones
carry information: `lost` (baseline right, candidate wrong) and `gained` (the opposite). Given
lost + gained = m, lost is binomial(m, θ); the Clopper–Pearson bounds of θ (Biometrika 26, 1934) give
bounds of the
drop = (lost - gained) / n; θ = ½ is McNemar's null hypothesis in its exact form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PairedDrop:
    """The drop in the share of right items, candidate against baseline.

    `drop` is the point estimate; `lower` and `upper` are one-sided bounds, each at `confidence`;
    `p_worse` is the exact one-sided McNemar p-value of "no worse"; `detectable` the smallest drop that this n
    could have shown (all discordant items lost).
    """

    n: int
    lost: int
    gained: int
    drop: float
    lower: float
    upper: float
    p_worse: float
    detectable: float
    confidence: float


def paired_drop(lost: int, gained: int, n: int, *, confidence: float = 0.95) -> PairedDrop:
    """Bounds of the drop from counts of discordant items.

    Args:
        lost: items the baseline gets right and the candidate wrong.
        gained: items the candidate gets right and the baseline wrong.
        n: all items.
        confidence: of each one-sided bound, within (0.5, 1).

    Raises:
        ValueError: counts that do not fit.
    """
    if min(lost, gained) < 0 or lost + gained > n or not 0.5 < confidence < 1:
        raise ValueError(f"lost {lost}, gained {gained}, n {n}, confidence {confidence} do not fit")
    if n == 0:
        return PairedDrop(
            n=0,
            lost=0,
            gained=0,
            drop=0.0,
            lower=-1.0,
            upper=1.0,
            p_worse=1.0,
            detectable=1.0,
            confidence=confidence,
        )
    m, alpha = lost + gained, 1 - confidence
    # Without a discordant item the bound of the drop is that of an event never seen: 1 - alpha**(1/n).
    unseen = 1 - alpha ** (1 / n)
    lower = m * (2 * binomial_lower(lost, m, confidence) - 1) / n if m else 0.0
    upper = m * (2 * binomial_upper(lost, m, confidence) - 1) / n if m else unseen
    needed = math.ceil(math.log(alpha) / math.log(0.5))
    return PairedDrop(
        n=n,
        lost=lost,
        gained=gained,
        drop=(lost - gained) / n,
        lower=lower,
        upper=upper,
        p_worse=binomial_tail(lost, m, 0.5) if m else 1.0,
        detectable=min(1.0, needed / n),
        confidence=confidence,
    )


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X ≥ k) for X ~ binomial(n, p), summed from the smaller side."""
    if k <= 0:
        return 1.0
    if k > n or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    if k > n * p:
        return min(1.0, math.fsum(_pmf(i, n, p) for i in range(k, n + 1)))
    return max(0.0, 1.0 - math.fsum(_pmf(i, n, p) for i in range(k)))


def binomial_lower(k: int, n: int, confidence: float) -> float:
    """One-sided Clopper–Pearson lower bound of p after k of n."""
    if k <= 0:
        return 0.0
    return _bisect(lambda p: binomial_tail(k, n, p) > 1 - confidence)


def binomial_upper(k: int, n: int, confidence: float) -> float:
    """One-sided Clopper–Pearson upper bound of p after k of n."""
    return 1.0 - binomial_lower(n - k, n, confidence)


def _pmf(k: int, n: int, p: float) -> float:
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))


def _bisect(above: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return (low + high) / 2
