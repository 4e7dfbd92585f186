"""An `Ensemble` as plain ONNX ops: no ONNX-ML, no control flow, any batch.

Two forms, both with the same leaves and the same sums:

* *product*: all decisions at once, a matrix product counts for each leaf how many of the decisions
  that lead to it hold, the leaf with all of them is reached. Small whole numbers: exact in float32.
* *walk*: a table of nodes and one step a level, for trees whose product would be large.

The sum is exact: values are split into whole multiples of powers of two so short that float32 adds
them without rounding in any order, and put together at the end. Where the source itself adds in
float32, one addition after another does the same here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit_converters.frontends.emit import Array, Emitter
from edgekit_converters.frontends.trees.ensemble import (
    IN,
    LT,
    NAN_IS_ZERO,
    WHOLE,
    ZERO_IS_NAN,
    Ensemble,
    Tree,
    bounds,
)
from edgekit_converters.frontends.trees.walk import walk

_LARGEST_PRODUCT = 1 << 19
_LONGEST_CHAIN = 1024
_ZERO = 1e-35
_CHUNKS = 4


def emit_ensemble(
    e: Emitter, x: str, ensemble: Ensemble, dtype: Any = np.float32, total: Any = np.float32
) -> str:
    """The sums (N, outputs) of type `total` for `x` (N, features) of `dtype`; gives their name."""
    x, remap = _views(e, x, ensemble, dtype)
    cells = sum(max(1, len(t.inner)) * len(t.leaves) for t in ensemble.trees)
    small = cells <= _LARGEST_PRODUCT and max(len(t.leaves) for t in ensemble.trees) <= 512
    form, order = _product if small else walk, _rounds(ensemble)
    if order is not None and ensemble.adds == "float32" and len(order) <= _LONGEST_CHAIN:
        values = [tree.value.sum(axis=1, keepdims=True).astype(np.float32) for tree in ensemble.trees]
        return _one_after_another(e, form(e, x, ensemble.trees, values, remap, dtype), ensemble, order)
    parts = _Parts.of(ensemble, total)
    if order is None or order.shape[1] == 1:
        found = form(e, x, ensemble.trees, parts.values, remap, dtype)
        return parts.joined(e, e.reduce("ReduceSum", found, [0], keep=False))
    values = [_own_column(v, ensemble, i) for i, v in enumerate(parts.values)]
    found = form(e, x, ensemble.trees, values, remap, dtype)
    return parts.joined(e, _summed_by_output(e, found, order, len(parts.base)))


def _views(e: Emitter, x: str, ensemble: Ensemble, dtype: Any) -> tuple[str, Array]:
    """`x` with the changed columns that nodes look at, and where each (view, column) lies."""
    n = ensemble.features
    used = sorted({int(f) // n for tree in ensemble.trees for f in tree.feature[tree.inner]})
    remap = np.zeros(4 * n, np.int64)
    parts = []
    for place, view in enumerate(used):
        remap[view * n : (view + 1) * n] = np.arange(place * n, (place + 1) * n)
        parts.append(_view(e, x, view, dtype))
    return (parts[0] if len(parts) == 1 else e.op("Concat", *parts, axis=1) if parts else x), remap


def _view(e: Emitter, x: str, view: int, dtype: Any) -> str:
    if view == ZERO_IS_NAN:
        near = e.compare("LessOrEqual", e.op("Abs", x), e.constant(_ZERO, dtype))
        return e.op("Where", near, e.constant(np.nan, dtype), x)
    if view == NAN_IS_ZERO:
        return e.op("Where", e.op("Equal", x, x), x, e.constant(0, dtype))
    if view == WHOLE:
        return e.op("Mul", e.op("Sign", x), e.op("Floor", e.op("Abs", x)))
    return x


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Leaf values split into columns that add up without rounding."""

    values: list[Array]
    base: list[Array]
    dtype: Any

    @classmethod
    def of(cls, ensemble: Ensemble, dtype: Any) -> _Parts:
        """Columns ``part * outputs + output``, the coarsest part first."""
        every = np.concatenate([ensemble.base[None], *(tree.value for tree in ensemble.trees)])
        bits = np.finfo(dtype).nmant + 1 - int(np.ceil(np.log2(len(ensemble.trees) + 1)))
        largest = np.abs(every).max(axis=0)
        exponent = np.ceil(np.log2(np.where(largest > 0, largest, 1.0)))
        rest, parts = every.copy(), []
        for place in range(_CHUNKS):
            step = np.exp2(exponent - bits * (place + 1))
            part = np.round(rest / step) * step
            rest = rest - part
            parts.append(part)
            if not rest.any():
                break
        sizes = np.cumsum([1, *(len(tree.value) for tree in ensemble.trees)])[:-1]
        base, *values = np.split(np.concatenate(parts, axis=1).astype(dtype), sizes)
        return cls(values=values, base=np.split(base[0], len(parts)), dtype=dtype)

    def joined(self, e: Emitter, sums: str) -> str:
        """The parts' sums (N, parts * outputs) → (N, outputs), the finest first."""
        width, total = len(self.base[0]), None
        for place in reversed(range(len(self.base))):
            columns = np.arange(place * width, (place + 1) * width)
            part = e.gather(sums, columns, 1) if len(self.base) > 1 else sums
            if self.base[place].any():
                part = e.op("Add", part, e.constant(self.base[place][None], self.dtype))
            total = part if total is None else e.op("Add", total, part)
        assert total is not None
        return total


def _rounds(ensemble: Ensemble) -> Array | None:
    """(rounds, outputs) indices of trees where each tree has one output and all have as many trees."""
    if ensemble.targets is None:
        return None
    lists = [[i for i, t in enumerate(ensemble.targets) if t == k] for k in range(ensemble.outputs)]
    if len({len(item) for item in lists}) != 1:
        return None
    return np.array(lists).T


def _own_column(values: Array, ensemble: Ensemble, tree: int) -> Array:
    """Of the parts of all outputs those of the tree's own, (nodes, parts)."""
    assert ensemble.targets is not None
    return values.reshape(len(values), -1, ensemble.outputs)[:, :, ensemble.targets[tree]]


def _in_rounds(e: Emitter, values: str, order: Array) -> str:
    """(trees, N, columns) → (rounds, outputs, N * columns)."""
    rounds, width = order.shape
    flat = order.reshape(-1)
    if not np.array_equal(flat, np.arange(len(flat))):
        values = e.gather(values, flat, 0)
    return e.reshape(values, [rounds, width, -1])


def _summed_by_output(e: Emitter, values: str, order: Array, parts: int) -> str:
    """(trees, N, parts) → (N, parts * outputs)."""
    width = order.shape[1]
    sums = e.reduce("ReduceSum", _in_rounds(e, values, order), [0], keep=False)
    turned = e.op("Transpose", e.reshape(sums, [width, -1, parts]), perm=[1, 2, 0])
    return e.reshape(turned, [-1, parts * width])


def _one_after_another(e: Emitter, values: str, ensemble: Ensemble, order: Array) -> str:
    """(trees, N, 1) → (N, outputs): base, then round after round, each addition in float32."""
    rounds, width = order.shape
    shaped = _in_rounds(e, values, order)
    names = [e.fresh("round") for _ in range(rounds)]
    pieces = [shaped]
    if rounds > 1:
        count = {"num_outputs": rounds} if e.opset >= 18 else {}
        pieces = e.ops("Split", shaped, outputs=names, axis=0, **count)
    total = e.constant(ensemble.base.reshape(1, width, 1), np.float32)
    for piece in pieces:
        total = e.op("Add", total, piece)
    return e.op("Transpose", e.reshape(total, [width, -1]), perm=[1, 0])


@dataclass(frozen=True)
class _Event:
    kind: str
    feature: int
    limit: float


def _events(tree: Tree, node: int, limit: float) -> tuple[list[_Event], bool]:
    """Events of which at most one holds, and whether the node says yes when one does."""
    feature, nan_yes = int(tree.feature[node]), bool(tree.nan_yes[node])
    if tree.rule[node] == IN:
        found = [_Event("Equal", feature, float(item)) for item in tree.members[node]]
        return ([*found, _Event("NaN", feature, 0.0)] if nan_yes else found), True
    return [_Event("Greater" if nan_yes else "LessOrEqual", feature, limit)], not nan_yes


def _product(
    e: Emitter, x: str, trees: Sequence[Tree], values: Sequence[Array], remap: Array, dtype: Any
) -> str:
    """(trees, N, columns) of the leaves reached, by matrix products."""
    columns: dict[_Event, int] = {}
    tables = [_table(tree, columns, dtype) for tree in trees]
    rows = max(max(len(own) for own, _, _ in tables), 1)
    leaves = max(len(tree.leaves) for tree in trees)
    layout = np.zeros((len(trees), rows), np.int64)
    counts = np.zeros((len(trees), rows, leaves), np.float32)
    needed = np.full((len(trees), 1, leaves), 1e6, np.float32)
    given = np.zeros((len(trees), leaves, values[0].shape[1]), values[0].dtype)
    for i, (tree, (own, signs, wanted)) in enumerate(zip(trees, tables, strict=True)):
        layout[i, : len(own)] = own
        counts[i, : signs.shape[0], : signs.shape[1]] = signs
        needed[i, 0, : len(wanted)] = wanted - 0.5
        given[i, : len(wanted)] = values[i][tree.leaves]
    held = _held(e, x, columns, remap, dtype)
    laid = e.reshape(e.gather(held, layout.reshape(-1), 1), [-1, len(trees), rows])
    turned = e.op("Transpose", laid, perm=[1, 0, 2])
    reached = e.op("Greater", e.op("MatMul", turned, e.constant(counts)), e.constant(needed))
    return e.op("MatMul", e.cast(reached, given.dtype), e.constant(given))


def _table(tree: Tree, columns: dict[_Event, int], dtype: Any) -> tuple[list[int], Array, Array]:
    """The tree's events (columns), per event and leaf the sign, per leaf how many must hold."""
    limits = bounds(tree.threshold, tree.rule == LT, dtype)
    own: dict[int, int] = {}
    entries: list[tuple[int, int, int]] = []
    wanted = np.zeros(len(tree.leaves), np.float32)
    for leaf, path in enumerate(tree.paths()):
        for node, yes in path:
            events, positive = _events(tree, node, float(limits[node]))
            sign = 1 if yes == positive else -1
            wanted[leaf] += sign > 0
            for event in events:
                column = columns.setdefault(event, len(columns))
                entries.append((own.setdefault(column, len(own)), leaf, sign))
    signs = np.zeros((max(len(own), 1), len(tree.leaves)), np.float32)
    for row, leaf, sign in entries:
        signs[row, leaf] += sign
    return list(own), signs, wanted


def _held(e: Emitter, x: str, columns: dict[_Event, int], remap: Array, dtype: Any) -> str:
    """(N, events) in float32: one where the event holds."""
    parts: list[str] = []
    order: list[int] = []
    for kind in ("LessOrEqual", "Greater", "Equal", "NaN"):
        chosen = [event for event in columns if event.kind == kind]
        if not chosen:
            continue
        order += [columns[event] for event in chosen]
        part = e.gather(x, [int(remap[event.feature]) for event in chosen], 1)
        limits = e.constant([[event.limit for event in chosen]], dtype)
        parts.append(e.is_nan(part) if kind == "NaN" else e.compare(kind, part, limits))
    if not parts:  # nothing but single leaves: one event that nobody asks for, to carry the batch
        return e.cast(e.is_nan(e.gather(x, [0], 1)), np.float32)
    held = e.cast(e.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0], np.float32)
    if len(parts) > 1:
        held = e.gather(held, np.argsort(order), 1)
    return held
