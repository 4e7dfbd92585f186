"""What every figure shares: rows a sample, a value of rows, and the paired comparison of two lots of rows.

Bounds are one-sided at 95 %. Rows of rights and wrongs: exact, on the discordant pairs
(`edgekit.paired`). Everything else: percentile bootstrap over samples (Efron, 1979), seeded, the same
draw for source and variant, so that what both get wrong cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.paired import paired_drop

Array = NDArray[Any]

DRAWS = 200
_SEED = 20


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A quality figure. `rows` gives (n, …) from the outputs by name, `value` the figure from rows.

    `exact`: rows are booleans and the value is their mean. `higher` says whether more is better;
    `tolerance` is the loss accepted when the contract names none, in the figure's own unit.
    """

    name: str
    output: str
    rows: Callable[[Mapping[str, Array]], Array]
    value: Callable[[Array], float]
    exact: bool = False
    higher: bool = True
    tolerance: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One figure of source and variant. `drop` counts what was lost, whatever way is better.

    `lost` and `gained` are counted where the comparison is exact; `decides` says whether the verdict hangs
    on it. `slices`: name → (n, drop, lower bound), the bounds holding for all slices together (Bonferroni).
    """

    name: str
    output: str
    source: float
    variant: float
    n: int
    drop: float
    lower: float
    upper: float
    detectable: float | None
    tolerance: float
    higher: bool = True
    lost: int | None = None
    gained: int | None = None
    decides: bool = True
    slices: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether the bounds are exact."""
        return self.lost is not None

    @property
    def worst_slice(self) -> tuple[str, float] | None:
        """Name and drop of the slice that lost most."""
        if not self.slices:
            return None
        name = max(self.slices, key=lambda item: self.slices[item][1])
        return name, self.slices[name][1]


def judged(
    figure: Figure,
    source: Mapping[str, Array],
    variant: Mapping[str, Array],
    slices: Array | None,
    tolerance: float | None,
    *,
    decides: bool = True,
) -> Judged:
    """Compare one figure on the same samples.

    Args:
        figure: what to compare.
        source: the source's outputs by name, first axis n.
        variant: the variant's.
        slices: a name for each sample, or None.
        tolerance: the contract's, or None for the figure's own.
        decides: whether the verdict hangs on it.
    """
    theirs, ours = figure.rows(source), figure.rows(variant)
    found = _compare(figure, theirs, ours)
    parts = {}
    names = np.unique(slices) if slices is not None else ()
    for name in names:
        chosen = slices == name
        part = _compare(figure, theirs[chosen], ours[chosen], confidence=1 - 0.05 / len(names))
        parts[str(name)] = (int(chosen.sum()), part["drop"], part["lower"])
    return Judged(
        name=figure.name,
        output=figure.output,
        source=figure.value(theirs),
        variant=figure.value(ours),
        n=len(theirs),
        tolerance=figure.tolerance if tolerance is None else tolerance,
        higher=figure.higher,
        decides=decides,
        slices=parts,
        **found,
    )


def _compare(figure: Figure, theirs: Array, ours: Array, *, confidence: float = 0.95) -> dict[str, Any]:
    if figure.exact:
        lost, gained = int((theirs & ~ours).sum()), int((~theirs & ours).sum())
        drop = paired_drop(lost, gained, len(theirs), confidence=confidence)
        return {
            "drop": drop.drop,
            "lower": drop.lower,
            "upper": drop.upper,
            "detectable": drop.detectable,
            "lost": lost,
            "gained": gained,
        }
    sign = 1.0 if figure.higher else -1.0

    def drop_of(index: Array) -> float:
        return sign * (figure.value(theirs[index]) - figure.value(ours[index]))

    rng = np.random.default_rng(_SEED)
    draws = [drop_of(rng.integers(0, len(theirs), len(theirs))) for _ in range(DRAWS)]
    lower, upper = np.nanquantile(draws, [1 - confidence, confidence])
    return {
        "drop": drop_of(np.arange(len(theirs))),
        "lower": float(lower),
        "upper": float(upper),
        "detectable": None,
    }


def mean(rows: Array) -> float:
    """The mean of all rows."""
    return float(rows.mean())
