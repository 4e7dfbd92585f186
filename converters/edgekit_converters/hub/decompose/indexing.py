"""Picking and placing elements: by Gather on a flattened tensor, by masks, by ScatterND.

Positions are computed on flattened tensors, which needs known sizes; where they are not known, the
rule does not apply. Negative indices count from the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    Array,
    attr_int,
    attr_str,
    axis_of,
    constant,
    dims,
    numpy_dtype,
    operand,
    rank,
    required,
    static_shape,
)

_LARGEST_MASK = 2**22
_INT64 = ir.DataType.INT64


def strides_of(sizes: Sequence[int]) -> list[int]:
    """How far one step along each axis goes in the flattened tensor."""
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def wrapped(b: Builder, indices: ir.Value, size: int) -> ir.Value:
    """Indices as int64, negative ones counted from the end."""
    known = constant(indices)
    if known is not None:
        return b.const(np.where(known < 0, known + size, known).astype(np.int64))
    wide = b.cast(indices, _INT64)
    return b("Where", b("Less", wide, 0), b("Add", wide, size), wide)


def _places(sizes: Sequence[int], strides: Sequence[int], skip: int) -> Array:
    """The flattened position of each element of `sizes` but for its step along axis `skip`."""
    found = np.zeros(tuple(sizes), np.int64)
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        if axis != skip:
            shape = [size if other == axis else 1 for other in range(len(sizes))]
            found = found + (np.arange(size, dtype=np.int64) * stride).reshape(shape)
    return found


def _linear(b: Builder, node: ir.Node, data: ir.Value, indices: ir.Value) -> ir.Value | None:
    """Where GatherElements and ScatterElements read or write, in the flattened data."""
    sizes, wanted = static_shape(data), static_shape(indices)
    if sizes is None or wanted is None or not sizes:
        return None
    axis = axis_of(node, len(sizes))
    strides = strides_of(sizes)
    steps = wrapped(b, indices, sizes[axis])
    steps = steps if strides[axis] == 1 else b("Mul", steps, strides[axis])
    return b("Add", steps, b.const(_places(wanted, strides, axis)))


@rule("GatherElements")
def gather_elements(node: ir.Node, b: Builder) -> Result:
    """Gather from the flattened data."""
    data = required(node, 0)
    places = _linear(b, node, data, required(node, 1))
    return None if places is None else b("Gather", b.reshape(data, -1), places, axis=0)


@rule("GatherND")
def gather_nd(node: ir.Node, b: Builder) -> Result:
    """Gather from the data with its indexed axes merged into one."""
    data, indices = required(node, 0), required(node, 1)
    sizes, wanted = static_shape(data), static_shape(indices)
    if sizes is None or wanted is None:
        return None
    batch, depth = attr_int(node, "batch_dims"), wanted[-1]
    merged, rest = sizes[: batch + depth], sizes[batch + depth :]
    strides = strides_of(merged)
    places = _positions(b, indices, sizes[batch : batch + depth], strides[batch:])
    if batch:
        shape = wanted[:-1]
        start = _places(shape, [*strides[:batch], *([0] * (len(shape) - batch))], -1)
        places = b("Add", places, b.const(start))
    return b("Gather", b.reshape(data, math.prod(merged), *rest), places, axis=0)


def _positions(b: Builder, indices: ir.Value, sizes: Sequence[int], strides: Sequence[int]) -> ir.Value:
    """Index tuples in the last axis as one position each."""
    wide = wrapped(b, b.cast(indices, _INT64), 0)
    limits = b.const(np.asarray(sizes, np.int64))
    wide = b("Where", b("Less", wide, 0), b("Add", wide, limits), wide)
    if len(strides) == 1:
        return b("Squeeze", b("Mul", wide, strides[0]), [-1 + (rank(indices) or 0)])
    return b("ReduceSum", b("Mul", wide, list(strides)), [(rank(indices) or 0) - 1], keepdims=0)


@rule("ScatterElements")
def scatter_elements(node: ir.Node, b: Builder) -> Result:
    """ScatterND into the flattened data."""
    data, updates = required(node, 0), required(node, 2)
    places = _linear(b, node, data, required(node, 1))
    sizes = static_shape(data)
    if places is None or sizes is None:
        return None
    reduction = attr_str(node, "reduction", "none")
    flat = b(
        "ScatterND",
        b.reshape(data, -1),
        b.reshape(places, -1, 1),
        b.reshape(updates, -1),
        reduction=None if reduction == "none" else reduction,
    )
    return b.reshape(flat, *sizes)


@rule("ScatterND")
def scatter_nd(node: ir.Node, b: Builder) -> Result:
    """A mask of which update goes to which row; updates to one row are combined by a reduction."""
    data, indices, updates = (required(node, index) for index in range(3))
    sizes, wanted = static_shape(data), static_shape(indices)
    if sizes is None or wanted is None or not sizes:
        return None
    depth = wanted[-1]
    rows, rest = math.prod(sizes[:depth]), math.prod(sizes[depth:])
    count = math.prod(wanted[:-1])
    if rows * rest * count > _LARGEST_MASK:
        return None
    places = b.reshape(_positions(b, indices, sizes[:depth], strides_of(sizes[:depth])), count, 1)
    hit = b("Equal", places, b.const(np.arange(rows, dtype=np.int64).reshape(1, rows)))
    hit = b("Unsqueeze", hit, [2])
    news = b.reshape(updates, count, 1, rest)
    flat = b.reshape(data, rows, rest)
    found = _combined(b, attr_str(node, "reduction", "none"), flat, hit, news)
    return None if found is None else b.reshape(found, *sizes)


def _combined(b: Builder, kind: str, data: ir.Value, hit: ir.Value, news: ir.Value) -> ir.Value | None:
    if data.dtype == ir.DataType.BOOL:
        if kind != "none":
            return None
        wide = _combined(b, kind, b.cast(data, ir.DataType.INT32), hit, b.cast(news, ir.DataType.INT32))
        return None if wide is None else b.cast(wide, ir.DataType.BOOL)
    if kind in ("none", "add"):
        whole = b("ReduceSum", b("Where", hit, news, b.scalar(0, data)), [0], keepdims=0)
        if kind == "add":
            return b("Add", data, whole)
        any_hit = b("ReduceMax", b.cast(hit, ir.DataType.INT32), [0], keepdims=0)
        return b("Where", b("Greater", any_hit, 0), whole, data)
    if kind == "mul":
        return b("Mul", data, b("ReduceProd", b("Where", hit, news, b.scalar(1, data)), [0], keepdims=0))
    edge = _edge(data, lowest=kind == "max")
    if edge is None:
        return None
    top = b(
        "ReduceMax" if kind == "max" else "ReduceMin", b("Where", hit, news, b.const(edge)), [0], keepdims=0
    )
    return b("Max" if kind == "max" else "Min", data, top)


def _edge(value: ir.Value, *, lowest: bool) -> Array | None:
    """The lowest or highest element of a type."""
    kind = numpy_dtype(value)
    if kind.kind == "f":
        return np.asarray(-np.inf if lowest else np.inf, kind)
    if kind.kind in "iu":
        return np.asarray(np.iinfo(kind).min if lowest else np.iinfo(kind).max, kind)
    return None


@rule("OneHot")
def one_hot(node: ir.Node, b: Builder) -> Result:
    """The steps along a new axis, compared with the indices."""
    indices, depth, values = (required(node, index) for index in range(3))
    size, known = rank(indices), constant(depth)
    if size is None:
        return None
    axis = axis_of(node, size + 1, default=-1)
    shape = [-1 if other == axis else 1 for other in range(size + 1)]
    if known is not None:
        count = int(known.reshape(-1)[0])
        steps: ir.Value = b.const(np.arange(count, dtype=np.int64).reshape(shape))
        wide = wrapped(b, indices, count)
    else:
        limit = b.reshape(b.cast(depth, _INT64), [])
        steps = b.reshape(b("Range", b.const_int(0), limit, b.const_int(1)), *shape)
        wide = b.cast(indices, _INT64)
        wide = b("Where", b("Less", wide, 0), b("Add", wide, limit), wide)
    same = b("Equal", b("Unsqueeze", wide, [axis]), steps)
    off, on = b.slice(values, 0, 0, 1), b.slice(values, 0, 1, 2)
    if values.dtype == ir.DataType.BOOL:
        return b("Or", b("And", same, on), b("And", b("Not", same), off))
    return b("Where", same, on, off)


@rule("EyeLike")
def eye_like(node: ir.Node, b: Builder) -> Result:
    """A constant."""
    sizes = static_shape(required(node, 0))
    if sizes is None or len(sizes) != 2:
        return None
    kind = ir.DataType(attr_int(node, "dtype", int(required(node, 0).dtype or ir.DataType.FLOAT)))
    return b.const(np.eye(*sizes, k=attr_int(node, "k")).astype(kind.numpy()))


@rule("Trilu")
def trilu(node: ir.Node, b: Builder) -> Result:
    """The distance from the diagonal, compared with k."""
    x, k = required(node, 0), operand(node, 1)
    sizes = dims(x)
    if sizes is None or sizes[-1] is None or sizes[-2] is None:
        return None
    distance = np.arange(sizes[-1], dtype=np.int64)[None, :] - np.arange(sizes[-2], dtype=np.int64)[:, None]
    limit = b.const_int(0) if k is None else k
    kind = "GreaterOrEqual" if attr_int(node, "upper", 1) else "LessOrEqual"
    kept = b(kind, b.const(distance), limit)
    if x.dtype == ir.DataType.BOOL:
        return b("And", kept, x)
    return b("Where", kept, x, b.scalar(0, x))


@rule("Compress")
def compress(node: ir.Node, b: Builder) -> Result:
    """Gather at the places where the condition holds."""
    x, condition = required(node, 0), required(node, 1)
    places = b.reshape(b("NonZero", condition), -1)
    if "axis" not in node.attributes:
        return b("Gather", b.reshape(x, -1), places, axis=0)
    return b("Gather", x, places, axis=attr_int(node, "axis"))


@rule("ReverseSequence")
def reverse_sequence(node: ir.Node, b: Builder) -> Result:
    """GatherElements at length − 1 − t inside each sequence, at t behind it."""
    x, lengths = required(node, 0), required(node, 1)
    sizes = static_shape(x)
    if sizes is None:
        return None
    batch, time = attr_int(node, "batch_axis", 1), attr_int(node, "time_axis", 0)
    steps = _along(b, sizes, time)
    limits = b.reshape(b.cast(lengths, _INT64), *[-1 if a == batch else 1 for a in range(len(sizes))])
    back = b("Sub", b("Sub", limits, 1), steps)
    places = b("Where", b("Less", steps, limits), back, steps)
    return b("GatherElements", x, b("Expand", places, list(sizes)), axis=time)


def _along(b: Builder, sizes: Sequence[int], axis: int) -> ir.Value:
    shape = [sizes[axis] if other == axis else 1 for other in range(len(sizes))]
    return b.const(np.arange(sizes[axis], dtype=np.int64).reshape(shape))


@rule("CumSum")
def cumulative_sum(node: ir.Node, b: Builder) -> Result:
    """The sum over a triangle of copies; for an axis that is fed, each one it may be."""
    x, axis = required(node, 0), required(node, 1)
    sizes, where = static_shape(x), constant(axis)
    if not sizes or max(sizes) * math.prod(sizes) > _LARGEST_MASK:
        return None
    if where is not None:
        return _triangle_sum(node, b, x, sizes, int(where.reshape(-1)[0]) % len(sizes))
    one = b.reshape(axis, [])
    position = b("Where", b("Less", one, 0), b("Add", one, len(sizes)), one)
    found = _triangle_sum(node, b, x, sizes, 0)
    for other in range(1, len(sizes)):
        found = b("Where", b("Equal", position, other), _triangle_sum(node, b, x, sizes, other), found)
    return found


def _triangle_sum(node: ir.Node, b: Builder, x: ir.Value, sizes: Sequence[int], axis: int) -> ir.Value:
    count = sizes[axis]
    mask = np.tri(count, count, -attr_int(node, "exclusive"), dtype=bool)
    if attr_int(node, "reverse"):
        mask = mask[::-1, ::-1]
    mask = np.ascontiguousarray(mask.reshape(count, count, *([1] * (len(sizes) - axis - 1))))
    kept = b("Where", b.const(mask), b("Unsqueeze", x, [axis]), b.scalar(0, x))
    return b("ReduceSum", kept, [axis + 1], keepdims=0)
