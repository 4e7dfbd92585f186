"""Taking and putting by index: Gather*, Scatter*, OneHot, NonZero, Compress, Where's kin.

Facts by trial (ai_edge_litert 2.3.0): GATHER and GATHER_ND refuse negative indices when they run, so
negative ones are counted from the front here; SCATTER_ND starts from zeros and adds what meets in one
place, so the last update of each place is found by UNSORTED_SEGMENT_MAX (FLOAT and INT32) and gathered.
Elements are addressed by one number each: Scatter and GatherElements work on the flattened tensor.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, attr_str, axis_of
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import NUMBERS, D, as_bits, from_bits, widened
from edgekit_converters.targets.tflite.lower.parts import given
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Shape, Spec, Tensor, known

_SEGMENTED = frozenset({D.FLOAT, D.INT32})
_SEGMENTS = {
    "add": ("UNSORTED_SEGMENT_SUM", "ADD"),
    "mul": ("UNSORTED_SEGMENT_PROD", "MUL"),
    "max": ("UNSORTED_SEGMENT_MAX", "MAXIMUM"),
    "min": ("UNSORTED_SEGMENT_MIN", "MINIMUM"),
}


@lowers("Gather", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def gather(ctx: Context, node: ir.Node) -> None:
    """Rows along one axis."""
    tensor = ctx.tensor(given(node, 0))
    axis = axis_of(node, tensor.rank)
    indices = _indices(ctx, given(node, 1), tensor, axis)
    bits = as_bits(ctx, tensor)
    ctx.set(node.outputs[0], from_bits(ctx, parts.gather(ctx, bits, indices, axis), tensor.dtype))


@lowers("GatherElements")
def gather_elements(ctx: Context, node: ir.Node) -> None:
    """Each index names the place along one axis; the other places are its own."""
    tensor, value = ctx.tensor(given(node, 0)), given(node, 1)
    axis = axis_of(node, tensor.rank)
    indices = _indices(ctx, value, tensor, axis)
    bits = as_bits(ctx, tensor)
    flat = ctx.reshape(bits, (_count(tensor),))
    places = _flat_places(ctx, tensor, indices, axis)
    ctx.set(node.outputs[0], from_bits(ctx, parts.gather(ctx, flat, places, 0), tensor.dtype))


@lowers("GatherND")
def gather_nd(ctx: Context, node: ir.Node) -> None:
    """Rows by the places along the first axes, after `batch_dims` axes that both share."""
    tensor, value = ctx.tensor(given(node, 0)), given(node, 1)
    batch = attr_int(node, "batch_dims")
    indices = _tuples(ctx, ctx.tensor(value), tensor, batch)
    if batch:
        own = [parts.iota(ctx, indices, axis) for axis in range(batch)]
        sizes = parts.sizes(ctx, indices)
        one = (*indices.shape[:-1], 1)
        ends = parts.joined(ctx, [parts.part(ctx, sizes, 0, indices.rank - 1), ctx.ints([1])])
        own = [ctx.emit("BROADCAST_TO", [item, ends], item.spec(one)) for item in own]
        indices = parts.joined(ctx, [*own, indices], indices.rank - 1)
    depth = indices.shape[-1]
    if depth is None:
        raise parts.refuse(
            node, "the length of the indices is known only when the model runs", "dynamic_shape"
        )
    bits = as_bits(ctx, tensor)
    spec = bits.spec((*indices.shape[:-1], *tensor.shape[depth:]))
    ctx.set(node.outputs[0], from_bits(ctx, ctx.emit("GATHER_ND", [bits, indices], spec), tensor.dtype))


@lowers("ScatterElements", "Scatter")
def scatter_elements(ctx: Context, node: ir.Node) -> None:
    """The tensor with elements replaced or reduced, each index naming a place along one axis."""
    tensor = ctx.tensor(given(node, 0))
    axis = axis_of(node, tensor.rank)
    indices = _indices(ctx, given(node, 1), tensor, axis)
    places = _flat_places(ctx, tensor, indices, axis)
    updates = ctx.tensor(given(node, 2))
    flat = [ctx.reshape(item, (_count(item),)) for item in (tensor, places, updates)]
    made = _scattered(ctx, node, *flat)
    ctx.set(node.outputs[0], parts.reshaped(ctx, made, parts.sizes(ctx, tensor), tensor.shape))


@lowers("ScatterND")
def scatter_nd(ctx: Context, node: ir.Node) -> None:
    """The tensor with rows replaced or reduced by their places along the first axes."""
    tensor, updates = ctx.tensor(given(node, 0)), ctx.tensor(given(node, 2))
    indices = _tuples(ctx, ctx.tensor(given(node, 1)), tensor, 0)
    depth = indices.shape[-1]
    if depth is None:
        raise parts.refuse(
            node, "the length of the indices is known only when the model runs", "dynamic_shape"
        )
    if depth:
        strides = parts.joined(ctx, [_stride(ctx, tensor, axis + 1, depth) for axis in range(depth)])
        indices = parts.times(ctx, indices, strides)
    places = parts.reduced(ctx, "SUM", indices, [indices.rank - 1], keep=False)
    row, width = _stride(ctx, tensor, depth, tensor.rank), _product(tensor.shape[depth:])
    flat = [
        _as_rows(ctx, item, (_product(item.shape[:lead]), width), row)
        for item, lead in ((tensor, depth), (updates, indices.rank - 1))
    ]
    made = _scattered(ctx, node, flat[0], ctx.reshape(places, (_count(places),)), flat[1])
    ctx.set(node.outputs[0], parts.reshaped(ctx, made, parts.sizes(ctx, tensor), tensor.shape))


@lowers("OneHot")
def one_hot(ctx: Context, node: ir.Node) -> None:
    """`values[1]` where an index points along a new axis of `depth`, else `values[0]`."""
    indices = widened(ctx, ctx.tensor(given(node, 0)), NUMBERS)
    axis = axis_of(node, indices.rank + 1, default=-1)
    number = parts.numbers_of(ctx, given(node, 1))
    depth = ctx.cast(parts.scalar(ctx, parts.whole(ctx, given(node, 1))), indices.dtype)
    # As in onnxruntime, a fractional index points nowhere.
    places = parts.counted_from_front(ctx, indices, depth)
    row = parts.counted(ctx, depth)
    if number is not None:
        row = ctx.const(np.arange(number[0]).astype(indices.dtype.numpy()))
    column = ctx.reshape(row, [row.shape[0] if place == axis else 1 for place in range(indices.rank + 1)])
    points = parts.compare(ctx, "EQUAL", _unsqueezed(ctx, places, axis), column)
    values = ctx.tensor(given(node, 2))
    off, on = (parts.scalar(ctx, parts.part(ctx, values, index, 1)) for index in (0, 1))
    ctx.set(node.outputs[0], parts.select(ctx, points, on, off))


@lowers("NonZero")
def non_zero(ctx: Context, node: ir.Node) -> None:
    """The places of what is not zero, one column each."""
    tensor = ctx.tensor(given(node, 0))
    if tensor.rank == 0:
        tensor = ctx.reshape(tensor, (1,))
    found = _places(ctx, tensor)
    ctx.set(node.outputs[0], ctx.transpose(found, (1, 0)))


@lowers("Compress")
def compress(ctx: Context, node: ir.Node) -> None:
    """Rows (or elements) where the condition holds."""
    tensor = ctx.tensor(given(node, 0))
    condition = ctx.tensor(given(node, 1))
    axis = axis_of(node, tensor.rank) if "axis" in node.attributes else 0
    if "axis" not in node.attributes:
        tensor = ctx.reshape(tensor, (_count(tensor),))
    places = ctx.reshape(ctx.emit("WHERE", [condition], Spec((None, 1), D.INT64)), (None,))
    bits = as_bits(ctx, tensor)
    ctx.set(node.outputs[0], from_bits(ctx, parts.gather(ctx, bits, places, axis), tensor.dtype))


def _places(ctx: Context, tensor: Tensor) -> Tensor:
    """Where a tensor is not zero: (count, rank)."""
    if tensor.dtype is not D.BOOL:
        wide = widened(ctx, tensor, {D.FLOAT, D.INT32, D.INT64})
        tensor = parts.compare(ctx, "NOT_EQUAL", wide, parts.like(ctx, wide, 0))
    return ctx.emit("WHERE", [tensor], Spec((None, tensor.rank), D.INT64))


def _count(tensor: Tensor) -> int | None:
    return _product(tensor.shape)


def _product(shape: Shape) -> int | None:
    sizes = known(shape)
    return None if sizes is None else math.prod(sizes)


def _as_rows(ctx: Context, tensor: Tensor, shape: Shape, row: Tensor) -> Tensor:
    """Two axes: rows, and what one row holds (`row` of them)."""
    if shape != (None, None):
        return ctx.reshape(tensor, shape)
    return parts.reshaped(ctx, tensor, parts.joined(ctx, [ctx.ints([-1]), row]), shape)


def _indices(ctx: Context, value: ir.Value, tensor: Tensor, axis: int) -> Tensor:
    """Indices along `axis`, counted from the front."""
    size = tensor.shape[axis]
    array = ctx.constant(value)
    if array is not None and (size is not None or (array >= 0).all()):
        return ctx.const(np.where(array < 0, array + (size or 0), array).astype(np.int32))
    places = ctx.tensor(value)
    places = ctx.cast(places, D.INT32) if places.dtype is D.INT64 else places
    count = ctx.ints(size) if size is not None else parts.scalar(ctx, parts.size(ctx, tensor, axis))
    return parts.counted_from_front(ctx, places, count)


def _tuples(ctx: Context, indices: Tensor, tensor: Tensor, skip: int) -> Tensor:
    """Rows of indices along the axes after `skip`, counted from the front."""
    depth = indices.shape[-1]
    places = ctx.cast(indices, D.INT32)
    if not depth:
        return places
    counts = parts.part(ctx, parts.sizes(ctx, tensor), skip, depth)
    return parts.counted_from_front(ctx, places, counts)


def _stride(ctx: Context, tensor: Tensor, start: int, end: int) -> Tensor:
    """The product of the sizes from axis `start` to before `end`, as a vector of one."""
    sizes = known(tensor.shape[start:end])
    if sizes is not None:
        return ctx.ints([math.prod(sizes)])
    return parts.reduced(
        ctx, "REDUCE_PROD", parts.part(ctx, parts.sizes(ctx, tensor), start, end - start), [0]
    )


def _flat_places(ctx: Context, tensor: Tensor, indices: Tensor, axis: int) -> Tensor:
    """For each index the place of its element in the flattened `tensor`."""
    total = parts.times(ctx, indices, _stride(ctx, tensor, axis + 1, tensor.rank))
    for other in range(tensor.rank):
        if other != axis and indices.shape[other] != 1:
            stride = _stride(ctx, tensor, other + 1, tensor.rank)
            total = parts.plus(ctx, total, parts.times(ctx, parts.iota(ctx, indices, other), stride))
    return total


def _scattered(ctx: Context, node: ir.Node, tensor: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """`tensor` (rows first) with `updates` put or reduced at the rows `places`."""
    reduction = attr_str(node, "reduction", "none")
    if places.shape[0] == 0:
        return tensor
    rows = parts.scalar(ctx, parts.size(ctx, tensor, 0))
    # The last update of each row; of rows that have none the smallest integer.
    order = parts.iota(ctx, places, 0)
    last = ctx.emit("UNSORTED_SEGMENT_MAX", [order, places, rows], Spec(tensor.shape[:1], D.INT32))
    touched = parts.compare(ctx, "GREATER_EQUAL", last, ctx.ints(0))
    if tensor.rank > 1:
        touched = ctx.reshape(touched, (tensor.shape[0], 1))
    if reduction == "none":
        chosen = ctx.binary("MAXIMUM", last, ctx.ints(0))
        bits = as_bits(ctx, updates)
        new = from_bits(ctx, parts.gather(ctx, bits, chosen, 0), tensor.dtype)
        return parts.select(ctx, touched, new, tensor)
    if reduction not in _SEGMENTS:
        raise parts.refuse(node, f"reduction {reduction}", "unsupported_attribute")
    op, combine = _SEGMENTS[reduction]
    wide, items = widened(ctx, tensor, _SEGMENTED), widened(ctx, updates, _SEGMENTED)
    segments = ctx.emit(op, [items, places, rows], wide.spec())
    return ctx.cast(parts.select(ctx, touched, ctx.binary(combine, wide, segments), wide), tensor.dtype)


def _unsqueezed(ctx: Context, tensor: Tensor, axis: int) -> Tensor:
    shape = (*tensor.shape[:axis], 1, *tensor.shape[axis:])
    return ctx.emit("EXPAND_DIMS", [tensor, ctx.ints(axis)], tensor.spec(shape))
