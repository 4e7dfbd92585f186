"""Reshapes of tensors that are held in another axis order than the logical one: pure functions.

A reshape that only splits axes or merges neighbours moves nothing in any order that keeps the merged axes
together. A channel shuffle of a tensor held channels last thus stays channels last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit_converters.targets.tflite.lower.tensors import Perm, Shape

Group = tuple[tuple[int, ...], tuple[int, ...]]
_FREE = 1_000_003  # stands for the one size that is known only when the model runs


def groups(before: Shape, after: Shape) -> list[Group] | None:
    """Runs of axes of `before` that become runs of axes of `after`; None when that cannot be told."""
    if before.count(None) > 1 or before.count(None) != after.count(None):
        return None
    old, new = ([_FREE if size is None else size for size in shape] for shape in (before, after))
    if math.prod(old) != math.prod(new) or 0 in old:
        return None
    found: list[Group] = []
    i = j = 0
    while i < len(old) or j < len(new):
        first, last = _run(old, i, new, j)
        found.append((tuple(range(i, first)), tuple(range(j, last))))
        i, j = first, last
    return found


def _run(old: Sequence[int], i: int, new: Sequence[int], j: int) -> tuple[int, int]:
    """Ends of the shortest runs from `i` and `j` with equal products, both not empty where possible."""
    first, last = min(i + 1, len(old)), min(j + 1, len(new))
    while math.prod(old[i:first]) != math.prod(new[j:last]):
        if math.prod(old[i:first]) < math.prod(new[j:last]) and first < len(old):
            first += 1
        elif last < len(new):
            last += 1
        else:
            first += 1
    if first == len(old) or last == len(new):  # what is left on the other side are ones
        return len(old) if last == len(new) else first, len(new) if first == len(old) else last
    return first, last


def carried(perm: Perm, found: Sequence[Group]) -> tuple[Perm, Perm] | None:
    """(order in which to hold the tensor before, order of the reshaped one) with every group together.

    The groups stand where their first axis stands in `perm`. None when an axis belongs to no group of axes
    on the other side.
    """
    of = {axis: group for group in found for axis in group[0]}
    if any(not old or not new for old, new in found) or len(of) != len(perm):
        return None
    order = list(dict.fromkeys(of[axis] for axis in perm))
    before = tuple(axis for group in order for axis in group[0])
    after = tuple(axis for group in order for axis in group[1])
    return before, after
