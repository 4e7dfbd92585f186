"""Which of the optional steps to take: each is kept only when it makes the measured result better.

A pure, greedy decision over a score (dB of signal to noise at the outputs on calibration samples);
`pipeline` supplies the score. A step must gain a margin, so that noise in the score decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

MARGIN = 0.25
_FINE = 30.0
"""Below this the finer of two allowed granularities of weights is worth its bytes."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to quantize: method of the ranges, and the optional steps."""

    method: str = "minmax"
    corrected: bool = False
    scaled: tuple[str, ...] = ()
    finer: bool = False

    def words(self) -> list[str]:
        """For the report."""
        named = [("bias correction", self.corrected), ("finer weights", self.finer)]
        names = {"equalize": "cross-layer equalization", "smooth": "smooth-quant"}
        return [
            f"ranges: {self.method}",
            *(names[item] for item in self.scaled),
            *(word for word, on in named if on),
        ]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The chosen recipe, its score, and every recipe that was scored."""

    recipe: Recipe
    score: float
    tried: Sequence[tuple[Recipe, float]] = field(default=())


def search(
    score: Callable[[Recipe], float],
    *,
    methods: Sequence[str],
    scalings: Sequence[str],
    finer: bool,
) -> Found:
    """The best recipe met on a greedy walk from MinMax ranges without any optional step."""
    tried: list[tuple[Recipe, float]] = []

    def measured(recipe: Recipe) -> float:
        tried.append((recipe, score(recipe)))
        return tried[-1][1]

    best = Recipe()
    top = measured(best)
    corrected = replace(best, corrected=True)
    value = measured(corrected)
    if value > top + MARGIN:
        best, top = corrected, value
    ranged = [(measured(recipe), recipe) for recipe in (replace(best, method=item) for item in methods)]
    for value, recipe in ranged:
        if value > top + MARGIN:
            best, top = recipe, value
    for kind in scalings:
        recipe = replace(best, scaled=(*best.scaled, kind))
        value = measured(recipe)
        if value > top + MARGIN:
            best, top = recipe, value
    if finer and top < _FINE:
        recipe = replace(best, finer=True)
        value = measured(recipe)
        if value > top + MARGIN:
            best, top = recipe, value
    return Found(recipe=best, score=top, tried=tuple(tried))
