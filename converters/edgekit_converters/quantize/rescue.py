"""Mixed precision to the rescue: the smallest set of layers whose move to float or 16 bit saves the rest.

Pure: layers come ranked, the score of a set comes from a function. The set grows by doubling until
the goal is met, is cut to its shortest prefix that still meets it, and then thinned from its least
suspect end. Which type a layer moves to is the runtime's (`Rules.rescue`): float where 16-bit kernels
are slow (LiteRT on a CPU), 16 bit where float is not computed at all (NPUs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Score = Callable[[Sequence[str]], float]


@dataclass(frozen=True, kw_only=True)
class Rescue:
    """`layers` moved, in rank order; `reached` whether the goal was met; `score` with them moved."""

    layers: tuple[str, ...]
    score: float
    reached: bool
    runs: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What moving layers costs: bytes that the weights grow by, share of the multiplications moved."""

    bytes: int
    share: float


def rescue(ranked: Sequence[str], score: Score, goal: float) -> Rescue:
    """The smallest set found. Without any that meets the goal, the best prefix met."""
    known: dict[tuple[str, ...], float] = {}

    def measured(layers: Sequence[str]) -> float:
        place = tuple(layers)
        if place not in known:
            known[place] = score(place)
        return known[place]

    size = _enough(ranked, measured, goal)
    if size is None:
        best = max(known, key=lambda item: (known[item], -len(item)), default=())
        return Rescue(layers=best, score=known.get(best, float("-inf")), reached=False, runs=len(known))
    low = size // 2
    while size - low > 1:
        middle = (low + size) // 2
        if measured(ranked[:middle]) >= goal:
            size = middle
        else:
            low = middle
    chosen = list(ranked[:size])
    for layer in reversed(chosen[:-1]):
        fewer = [item for item in chosen if item != layer]
        if measured(fewer) >= goal:
            chosen = fewer
    return Rescue(layers=tuple(chosen), score=measured(chosen), reached=True, runs=len(known))


def cost(layers: Sequence[str], weights: Mapping[str, int], work: Mapping[str, int], kind: str) -> Cost:
    """The price of moving `layers` to `kind`; `weights` elements and `work` multiplications by layer."""
    grown = 3 * sum(weights.get(item, 0) for item in layers) if kind == "float32" else 0
    total = sum(work.values())
    return Cost(bytes=grown, share=sum(work.get(item, 0) for item in layers) / total if total else 0.0)


def _enough(ranked: Sequence[str], measured: Score, goal: float) -> int | None:
    size = 1
    while ranked:
        if measured(ranked[:size]) >= goal:
            return min(size, len(ranked))
        if size >= len(ranked):
            return None
        size *= 2
    return None
