"""Slice and Pad. Specification: onnx/docs/Operators.md.

Bounds that are fed are computed with: the places are an arithmetic progression whose length the graph's
types tell. Reflecting, repeating and wrapping pads are gathers with constant places, which are exact for
any axis and any number of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from edgekit_converters.targets.coreml.lower.node import (
    Array,
    Node,
    Var,
    as_bool,
    as_int,
    choose,
    is_bool,
    is_float,
    on_int,
    reshaped,
)
from edgekit_converters.targets.coreml.lower.ops.arithmetic import floor_mod
from edgekit_converters.targets.coreml.lower.ops.reduce import positions
from edgekit_converters.targets.coreml.lower.ops.shape import take
from edgekit_converters.targets.coreml.lower.registry import lowers


@lowers("Slice")
def _slice(node: Node) -> Var:
    if any(node.has(index) and node.constant(index) is None for index in range(1, 5)):
        return _fed_slice(node)
    starts, ends = node.need(1), node.need(2)
    steps = node.constant(4)
    x = node.var(0)
    axes = _slice_axes(node, len(starts))
    begin, end, stride, back = [0] * x.rank, [0] * x.rank, [1] * x.rank, []
    masks = [True] * x.rank
    for index, axis in enumerate(axes):
        size = x.shape[axis]
        step = 1 if steps is None else int(steps[index])
        if is_symbolic(size):
            bounds = _open_slice(node, int(starts[index]), int(ends[index]), step)
        else:
            bounds = _closed_slice(node, int(starts[index]), int(ends[index]), step, int(size))
        begin[axis], end[axis], masks[axis], reverse = bounds
        stride[axis] = abs(step)
        if reverse:
            back.append(axis)
    if any(masks[a] is False or begin[a] or stride[a] > 1 for a in range(x.rank)):
        x = mb.slice_by_index(x=x, begin=begin, end=end, stride=stride, end_mask=masks)
    return mb.reverse(x=x, axes=back) if back else mb.identity(x=x)


def _slice_axes(node: Node, count: int) -> list[int]:
    rank = node.var(0).rank
    return [int(axis) % rank for axis in node.need(3)] if node.has(3) else list(range(count))


def _closed_slice(node: Node, start: int, end: int, step: int, size: int) -> tuple[int, int, bool, bool]:
    """Begin, end, end mask and whether to turn around, of a forward slice with the same elements."""
    chosen = range(size)[start:end:step]
    if not len(chosen):
        node.refuse("nothing is left", "empty_tensor")
    if step < 0:
        chosen = chosen[::-1]
    stop = chosen[-1] + 1
    whole = stop == size or chosen[-1] + abs(step) >= size
    return chosen[0], stop, whole, step < 0


def _open_slice(node: Node, start: int, end: int, step: int) -> tuple[int, int, bool, bool]:
    """The same where the size is free: only what needs no clamping."""
    if step < 0:
        node.refuse("backwards along a free size", "dynamic_shape")
    return start, end, end >= np.iinfo(np.int32).max, False


def _fed_slice(node: Node) -> Var:
    """Bounds, steps or axes that are fed: the places along each axis are computed."""
    x, result = node.var(0), node.result_shape()
    if result is None:
        node.refuse("bounds that are fed, of unknown lengths", "dynamic_shape")
    found = x
    for axis, size in enumerate(node.shape()):
        start = _for_axis(node, 3, 1, axis, 0)
        step = _for_axis(node, 3, 4, axis, 1)
        if start is None:
            continue
        step = mb.const(val=np.int32(1)) if step is None else step
        first = _clamped_start(start, size)
        places = mb.add(x=first, y=mb.mul(x=step, y=np.arange(result[axis], dtype=np.int32)))
        found = on_int(found, lambda v, p=places, a=axis: mb.gather(x=v, indices=p, axis=a))
    return found


def _for_axis(node: Node, axes: int, index: int, axis: int, default: int, length: int = 0) -> Var | None:
    """What the vector at input `index` says for one axis, the input `axes` naming the axes.

    None when it is absent or surely says nothing about that axis. Named axes that are fed are compared
    with `axis` when the program runs. `length` is how much of the vector counts, 0 for all of it.
    """
    if not node.has(index):
        return None
    rank, values = node.var(0).rank, node.var(index)
    count = length or node.sizes(values)[0]
    stored = node.constant(axes)
    if not node.has(axes) or stored is not None:
        named = list(range(count)) if stored is None else [int(a) % rank for a in stored]
        return _element(values, named.index(axis)) if axis in named else None
    found: Any = mb.const(val=np.int32(default))
    for place in range(count):
        other = _element(node.var(axes), place)
        own, negative = mb.equal(x=other, y=np.int32(axis)), mb.equal(x=other, y=np.int32(axis - rank))
        found = choose(mb.logical_or(x=own, y=negative), _element(values, place), found)
    return found


def _element(var: Var, index: int) -> Var:
    """One number of a vector, as a scalar."""
    part = mb.slice_by_index(x=var, begin=[index], end=[index + 1])
    return mb.squeeze(x=part, axes=[0])


def _clamped_start(start: Var, size: int) -> Var:
    """The first place: counted from the front, and inside."""
    start = choose(mb.less(x=start, y=np.int32(0)), mb.add(x=start, y=np.int32(size)), start)
    return mb.minimum(x=mb.maximum(x=start, y=np.int32(0)), y=np.int32(size - 1))


@lowers("Pad")
def _pad(node: Node) -> Var:
    x, mode = node.var(0), node.text("mode", "constant")
    if node.constant(1) is None or (node.has(3) and node.constant(3) is None):
        return _fed_pad(node, mode)
    before, after = _pads(node)
    x = _cropped(node, x, [min(p, 0) for p in before], [min(p, 0) for p in after])
    before, after = [max(p, 0) for p in before], [max(p, 0) for p in after]
    if not any(before) and not any(after):
        return mb.identity(x=x)
    if mode == "constant":
        return _constant_pad(node, x, before, after)
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            x = take(x, _mirrored(node.sizes(x)[axis], low, high, mode), axis)
    return x


def _pads(node: Node) -> tuple[list[int], list[int]]:
    rank, pads = node.var(0).rank, node.numbers(1) or []
    axes = list(range(rank))
    if node.has(3):
        axes = [axis % rank for axis in node.numbers(3) or []]
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    return before, after


def _cropped(node: Node, x: Var, before: list[int], after: list[int]) -> Var:
    if not any(before) and not any(after):
        return x
    sizes = node.sizes(x)
    begin = [-p for p in before]
    end = [size + p for size, p in zip(sizes, after, strict=True)]
    if any(b >= e for b, e in zip(begin, end, strict=True)):
        node.refuse("nothing is left", "empty_tensor")
    return mb.slice_by_index(x=x, begin=begin, end=end)


def _constant_pad(node: Node, x: Var, before: list[int], after: list[int]) -> Var:
    value: Any = node.constant(2) if node.has(2) else np.zeros((), np.float32)
    pairs = [p for pair in zip(before, after, strict=True) for p in pair]
    if value is not None and is_float(x):
        return mb.pad(x=x, pad=pairs, mode="constant", constant_val=np.float32(value.reshape(-1)[0]))
    if value is not None and node.has(2):
        fill: Any = value.reshape(-1)[0]
        fill = np.bool_(fill) if is_bool(x) else np.int32(fill)
    else:
        fill = reshaped(node.var(2), []) if node.has(2) else np.bool_(False) if is_bool(x) else np.int32(0)
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            x = _masked(x, axis, np.int32(low), node.sizes(x)[axis], node.sizes(x)[axis] + low + high, fill)
    return x


def _masked(x: Var, axis: int, low: Any, size: int, total: int, fill: Any) -> Var:
    """`x` along one axis with `low` places of `fill` before it, `total` long in all."""
    places = mb.sub(x=np.arange(total, dtype=np.int32), y=low)
    inside = mb.minimum(x=mb.maximum(x=places, y=np.int32(0)), y=np.int32(size - 1))
    moved = on_int(x, lambda v: mb.gather(x=v, indices=inside, axis=axis))
    column = positions(total, axis, x.rank).shape
    places = reshaped(places, column)
    valid = mb.logical_and(x=mb.greater_equal(x=places, y=np.int32(0)), y=mb.less(x=places, y=np.int32(size)))
    if is_bool(x):
        filler = np.int32(bool(fill)) if isinstance(fill, np.bool_) else as_int(fill)
        return as_bool(choose(valid, as_int(moved), filler))
    return choose(valid, moved, fill)


def _fed_pad(node: Node, mode: str) -> Var:
    """Padding by amounts that are fed: a negative one moves the start inside."""
    x, result = node.var(0), node.result_shape()
    if result is None:
        node.refuse("the pads must be constant", "requires_constant_input")
    fill: Any = np.float32(0) if is_float(x) else np.bool_(False) if is_bool(x) else np.int32(0)
    if node.has(2):
        fill = reshaped(node.var(2), [])
    half = node.shape(1)[0] // 2
    for axis, size in enumerate(node.shape()):
        low = _for_axis(node, 3, 1, axis, 0, half)
        if low is not None and mode == "constant":
            x = _masked(x, axis, low, size, result[axis], fill)
        elif low is not None:
            x = _fed_mirrored(x, axis, low, size, result[axis], mode)
    return x


def _fed_mirrored(x: Var, axis: int, low: Var, size: int, total: int, mode: str) -> Var:
    """`_mirrored` with a begin that is fed."""
    places = mb.sub(x=np.arange(total, dtype=np.int32), y=low)
    if mode == "edge" or (mode == "reflect" and size == 1):
        places = mb.minimum(x=mb.maximum(x=places, y=np.int32(0)), y=np.int32(size - 1))
    elif mode == "wrap":
        places = floor_mod(places, np.int32(size))
    else:
        period = np.int32(2 * (size - 1))
        folded = floor_mod(mb.abs(x=places), period)
        places = mb.minimum(x=folded, y=mb.sub(x=period, y=folded))
    return on_int(x, lambda v: mb.gather(x=v, indices=places, axis=axis))


def _mirrored(size: int, low: int, high: int, mode: str) -> Array:
    """Which places of an axis of `size` a padded one shows."""
    places = np.arange(-low, size + high)
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return np.asarray(np.mod(places, size))
    if size == 1:
        return np.zeros_like(places)
    period = 2 * (size - 1)
    folded = np.mod(np.abs(places), period)
    return np.asarray(np.minimum(folded, period - folded))
