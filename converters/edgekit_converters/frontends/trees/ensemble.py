"""An ensemble of decision trees as plain arrays: the form that all tree frontends end in.

A decision is yes or no: ``x <= t`` (`LE`), ``x < t`` (`LT`) or ``x in a set`` (`IN`). What NaN does is
said by each node. Values are float64, as the libraries hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LE, LT, IN = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One tree; node 0 is the root, a leaf has ``yes == -1``.

    Args:
        feature: index of the column a node looks at.
        rule: LE, LT or IN.
        threshold: of LE and LT.
        yes, no: index of the next node.
        nan_yes: NaN goes the yes way.
        value: (nodes, outputs), what a leaf adds.
        members: for IN nodes, the set.
    """

    feature: Array
    rule: Array
    threshold: Array
    yes: Array
    no: Array
    nan_yes: Array
    value: Array
    members: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def leaves(self) -> list[int]:
        """Nodes without children, in the order of the nodes."""
        return [int(i) for i in np.flatnonzero(self.yes < 0)]

    @property
    def inner(self) -> list[int]:
        """Nodes with children."""
        return [int(i) for i in np.flatnonzero(self.yes >= 0)]

    def paths(self) -> list[list[tuple[int, bool]]]:
        """By leaf the decisions that lead to it: (node, whether yes).

        Raises:
            ValueError: a node has two parents, or a child does not exist.
        """
        found: dict[int, list[tuple[int, bool]]] = {}
        todo: list[tuple[int, list[tuple[int, bool]]]] = [(0, [])]
        seen = 0
        while todo:
            node, path = todo.pop()
            seen += 1
            if seen > len(self.yes):
                raise ValueError("the tree has a circle or shares a branch")
            if self.yes[node] < 0:
                found[node] = path
                continue
            todo.append((int(self.yes[node]), [*path, (node, True)]))
            todo.append((int(self.no[node]), [*path, (node, False)]))
        return [found.get(leaf, []) for leaf in self.leaves]

    def depth(self) -> int:
        """Decisions on the longest path."""
        return max((len(path) for path in self.paths()), default=0)


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Trees whose values are added to `base`.

    Args:
        base: (outputs,) added to the sum.
        adds: ``exact``: the source adds in float64; ``float32``: it adds float32 numbers one after
            another, starting from `base`, and so do we, bit by bit.
        targets: by tree the one output it adds to, where each has only one.

    A node may look at a changed column, ``feature + view * features`` (`ZERO_IS_NAN` …).
    """

    trees: Sequence[Tree]
    features: int
    base: Array
    adds: str = "exact"
    targets: Sequence[int] | None = None

    @property
    def outputs(self) -> int:
        """Number of sums."""
        return len(self.base)


ZERO_IS_NAN, NAN_IS_ZERO, WHOLE = 1, 2, 3
"""Views of a column: magnitudes of at most 1e-35 count as missing; NaN counts as zero; whole part only."""


def bounds(threshold: Array, strict: Array, dtype: Any = np.float32) -> Array:
    """Numbers b of `dtype` such that ``x <= b`` decides every x of `dtype` as the node does.

    That is the largest number not above t, for a strict node below t. Denormal numbers, which some
    runtimes take for zero, are replaced by the neighbour that decides zero and normal numbers alike.
    """
    exact = np.asarray(threshold, np.float64)
    with np.errstate(over="ignore"):
        near = exact.astype(dtype)
        below = np.nextafter(near, dtype(-np.inf))
    wide = near.astype(np.float64)
    above = (wide > exact) | (np.asarray(strict, bool) & (wide == exact))
    chosen = np.where(above, below, near)
    tiny = np.finfo(dtype).tiny
    small = (np.abs(chosen) < tiny) & (chosen != 0)
    result: Array = np.where(small, np.where(chosen < 0, -tiny, 0), chosen).astype(dtype)
    return result
