"""What is tried, in which order: the profile's precisions, ladders of compression one rung at a time.

A ladder gets coarser with each rung. The next rung is tried only while the one above it keeps every bound on
quality, because a coarser form of the same weights does not get better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit_converters.budget.candidate import Candidate, Kept, keeps
from edgekit_converters.budget.terms import COSTS, Budget
from edgekit_converters.budget.weights import least_bytes

LADDERS = (
    ("palettized8", "palettized6", "palettized4", "palettized3", "palettized2", "palettized1"),
    ("sparse50", "sparse75"),
    ("w8", "int4"),
)


def rung_above(precision: str, tried: Iterable[str]) -> str | None:
    """The next finer form on the same ladder among `tried`; None on the first rung and off every ladder."""
    known = set(tried)
    for ladder in LADDERS:
        if precision in ladder:
            above = [item for item in ladder[: ladder.index(precision)] if item in known]
            return above[-1] if above else None
    return None


def rounds(precisions: Sequence[str]) -> list[list[str]]:
    """Precisions in rounds: everything off the ladders and the first rungs, then rung after rung."""
    depth: dict[str, int] = {}
    for precision in precisions:
        above = rung_above(precision, precisions)
        count = 0
        while above is not None:
            count, above = count + 1, rung_above(above, precisions)
        depth[precision] = count
    return [
        [p for p in precisions if depth[p] == level] for level in range(max(depth.values(), default=-1) + 1)
    ]


def not_worth_trying(precision: str, above: Candidate | None, budget: Budget, weights: int) -> str | None:
    """Why a candidate need not be built, None when it must."""
    least = least_bytes(weights, precision)
    for term in budget.terms:
        if term.metric in ("size", "flash") and not term.met(least) and least > term.limit:
            return f"not tried: the weights alone take {least / 1e6:.2f} MB ({term.text})"
    if above is None:
        return None
    if above.refusal:
        return f"not tried: {above.precision}, which is finer, is refused"
    for term in budget.terms:
        if term.metric not in COSTS and keeps(above, term) is Kept.MISSED:
            return f"not tried: {above.precision}, which is finer, misses {term.text} already"
    return None


__all__ = ["LADDERS", "not_worth_trying", "rounds", "rung_above"]
