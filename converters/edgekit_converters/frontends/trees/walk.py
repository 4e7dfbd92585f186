"""The walk: all nodes of all trees in one table, and one step down a level for every tree at once.

Five small ops a level, memory in proportion to the nodes; a leaf is its own child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_converters.frontends.emit import Array, Emitter
from edgekit_converters.frontends.trees.ensemble import IN, LT, Tree, bounds


class _Table:
    """Nodes of several trees as columns; every decision is ``x <= limit``."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.limit: list[float] = []
        self.yes: list[int] = []
        self.no: list[int] = []
        self.nan_yes: list[bool] = []

    def add(self, feature: int, limit: float, yes: int, no: int, nan_yes: bool) -> int:
        """Append a node; gives its place."""
        for column, item in zip(
            (self.feature, self.limit, self.yes, self.no, self.nan_yes),
            (feature, limit, yes, no, nan_yes),
            strict=True,
        ):
            column.append(item)  # type: ignore[attr-defined]  # each column takes its own kind
        return len(self.feature) - 1

    def levels(self, roots: Sequence[int]) -> int:
        """Decisions on the longest path."""
        level, todo = 0, {r for r in roots if self.yes[r] != r}
        while todo:
            level += 1
            todo = {c for n in todo for c in (self.yes[n], self.no[n]) if self.yes[c] != c}
        return level


def walk(e: Emitter, x: str, trees: Sequence[Tree], values: Sequence[Array], remap: Array, dtype: Any) -> str:
    """(trees, N, columns) of the leaves reached."""
    table, roots, rows = _Table(), [], []
    for tree, own in zip(trees, values, strict=True):
        roots.append(len(table.feature))
        rows += _append(table, tree, own, remap, dtype)
    place = _walked(e, x, table, roots, dtype)
    given = np.asarray(rows, values[0].dtype)
    reached = e.op("Gather", e.constant(given), place, axis=0)
    return e.op("Transpose", reached, perm=[1, 0, 2])


def _append(table: _Table, tree: Tree, values: Array, remap: Array, dtype: Any) -> list[Array]:
    """Put one tree's nodes into the table, its own indices plus the table's length; gives the values."""
    start, count = len(table.feature), len(tree.feature)
    limits = bounds(tree.threshold, tree.rule == LT, dtype)
    zero = np.zeros(values.shape[1])
    rows = [values[i] if tree.yes[i] < 0 else zero for i in range(count)]
    for i in range(count):
        leaf = tree.yes[i] < 0
        yes, no = (start + i, start + i) if leaf else (start + int(tree.yes[i]), start + int(tree.no[i]))
        limit = 0.0 if leaf else float(limits[i])
        table.add(int(remap[tree.feature[i]]) if not leaf else 0, limit, yes, no, bool(tree.nan_yes[i]))
    for i in tree.inner:
        if tree.rule[i] == IN:
            rows += [zero] * _spell_out(table, start + i, tree.members[i], dtype)
    return rows


def _spell_out(table: _Table, node: int, members: Sequence[float], dtype: Any) -> int:
    """Turn ``x in members`` into comparisons with its sorted numbers; gives how many nodes were added.

    A member c is two: not above c, and not above the number before c.
    """
    yes, no, nan_yes = table.yes[node], table.no[node], table.nan_yes[node]
    feature, before = table.feature[node], len(table.feature)
    ordered = sorted(members)
    upper = [float(b) for b in bounds(np.array(ordered), np.zeros(len(ordered), bool), dtype)]
    lower = [float(b) for b in bounds(np.array(ordered), np.ones(len(ordered), bool), dtype)]
    here = node
    for i, (high, low) in enumerate(zip(upper, lower, strict=True)):
        last = i + 1 == len(ordered)
        inside = table.add(feature, low, no, yes, False)
        beyond = no if last else table.add(feature, 0.0, no, no, False)
        table.limit[here], table.yes[here], table.no[here] = high, inside, beyond
        table.nan_yes[here] = nan_yes and i == 0
        here = beyond
    return len(table.feature) - before


def _walked(e: Emitter, x: str, table: _Table, roots: Sequence[int], dtype: Any) -> str:
    """(N, trees) places of the leaves reached, int32."""
    feature, limit = np.array(table.feature, np.int32), np.array(table.limit, dtype)
    children = np.stack([table.no, table.yes], axis=1).astype(np.int32)
    missing = any(table.nan_yes)
    names = (e.constant(feature), e.constant(limit), e.constant(children.reshape(-1)))
    nan_yes = e.constant(np.array(table.nan_yes, bool)) if missing else ""
    # The first step is the same for every sample: constants instead of look-ups.
    top = np.array(roots)
    column = e.gather(x, feature[top], 1)
    said = _decided(e, column, e.constant(limit[top][None]), np.array(table.nan_yes)[top], None)
    place = e.op("Where", said, e.constant(children[top, 1][None]), e.constant(children[top, 0][None]))
    for _ in range(table.levels(roots) - 1):
        column = e.op("GatherElements", x, e.op("Gather", names[0], place, axis=0), axis=1)
        limits = e.op("Gather", names[1], place, axis=0)
        flags = e.op("Gather", nan_yes, place, axis=0) if missing else None
        step = e.cast(_decided(e, column, limits, None, flags), np.int32)
        index = e.op("Add", e.op("Mul", place, e.constant(2, np.int32)), step)
        place = e.op("Gather", names[2], index, axis=0)
    return place


def _decided(e: Emitter, x: str, limits: str, fixed: Array | None, flags: str | None) -> str:
    """``x <= limits``, and yes for NaN where `fixed` or `flags` say so."""
    said = e.compare("LessOrEqual", x, limits)
    if fixed is not None and fixed.any():
        flags = e.constant(fixed[None])
    if flags is None or (fixed is not None and not fixed.any()):
        return said
    return e.op("Or", said, e.op("And", e.is_nan(x), flags))
