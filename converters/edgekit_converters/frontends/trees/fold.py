"""Scaling before trees taken into their thresholds, so that the trees see the source's own numbers.

A scaler computes ``(x - mean) / scale`` in float64 and stores float32; done again in float32, the last
bit may fall on the other side of a threshold. Scaling with a positive factor keeps the order of numbers,
rounding included, so for each threshold there is one largest float32 that still goes the same way: it is
found by halving, with the scaler itself, and takes the threshold's place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.trees.ensemble import IN, LE, LT, Ensemble, Tree

_CHUNK = 4096


def folded(ensemble: Ensemble, transform: Callable[[Array], Array]) -> Ensemble | None:
    """`ensemble` over what `transform` takes instead of what it gives; None if that cannot be said.

    `transform` keeps columns apart and each column's order.
    """
    for tree in ensemble.trees:
        inner = tree.inner
        if (tree.rule[inner] == IN).any() or (tree.feature[inner] >= ensemble.features).any():
            return None
    trees = [_folded(tree, ensemble.features, transform) for tree in ensemble.trees]
    return replace(ensemble, trees=trees)


def _folded(tree: Tree, features: int, transform: Callable[[Array], Array]) -> Tree:
    threshold, rule = tree.threshold.astype(np.float64), tree.rule.copy()
    inner = np.array(tree.inner, np.int64)
    for start in range(0, len(inner), _CHUNK):
        own = inner[start : start + _CHUNK]
        found = _largest(tree.feature[own], threshold[own], tree.rule[own] == LT, features, transform)
        threshold[own], rule[own] = found, LE
    return replace(tree, threshold=threshold, rule=rule)


def _largest(
    column: Array, limit: Array, strict: Array, features: int, transform: Callable[[Array], Array]
) -> Array:
    """For each node the largest float32 that goes the yes way; minus infinity if none does."""
    low = np.full(len(column), _place(np.float32(-np.inf)), np.int64)
    high = np.full(len(column), _place(np.float32(np.inf)), np.int64)
    rows = np.zeros((len(column), features), np.float32)
    index = np.arange(len(column))
    while (low < high).any():
        middle = -((-(low + high)) // 2)  # rounded up, so that the upper half is never empty
        rows[index, column] = _number(middle)
        seen = transform(rows)[index, column].astype(np.float64)
        yes = np.where(strict, seen < limit, seen <= limit)
        low, high = np.where(yes, middle, low), np.where(yes, high, middle - 1)
    return _number(low).astype(np.float64)


def _place(number: Any) -> Any:
    """Where float32 numbers stand in their order, as whole numbers."""
    bits = np.asarray(number, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _number(place: Array) -> Array:
    """Back from `_place`."""
    bits = np.where(place < 0, -place | 0x80000000, place).astype(np.uint32)
    found: Array = bits.view(np.float32)
    return found
