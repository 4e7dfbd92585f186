"""Shapes: Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Shape, Size, Identity.

Target shapes and axes may be computed; ranks are known. Facts by trial (ai_edge_litert 2.3.0): RESHAPE,
SQUEEZE, EXPAND_DIMS, TRANSPOSE and BROADCAST_TO take every type and ranks up to 8, BROADCAST_TO from
version 2 on; a computed shape may hold one -1; a 0 in it means zero elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, attr_ints
from edgekit_converters.targets.tflite.lower import layout, parts, regroup
from edgekit_converters.targets.tflite.lower.context import Context, broadcast
from edgekit_converters.targets.tflite.lower.parts import given, optional
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Shape, Spec, Tensor, known

D = ir.DataType
_ALL = ("INT8", "INT16", "UINT8")


@lowers("Identity")
def identity(ctx: Context, node: ir.Node) -> None:
    """The same value."""
    ctx.alias(node.outputs[0], given(node, 0), layout.identity(ctx.rank(given(node, 0))))


@lowers("Transpose", quantized=Quantized.SAME, dtypes=_ALL)
def transpose(ctx: Context, node: ir.Node) -> None:
    """Other axis order: only the name of the order changes until somebody needs the elements moved."""
    rank = ctx.rank(given(node, 0))
    perm = attr_ints(node, "perm") or tuple(reversed(range(rank)))
    ctx.alias(node.outputs[0], given(node, 0), tuple(perm))


@lowers("Reshape", quantized=Quantized.SAME, dtypes=_ALL)
def reshape(ctx: Context, node: ir.Node) -> None:
    """Another shape; 0 copies a size unless ``allowzero``, -1 takes what is left."""
    value, target = given(node, 0), given(node, 1)
    allowed = bool(attr_int(node, "allowzero"))
    numbers = parts.numbers_of(ctx, target)
    if numbers is None:
        return ctx.set(node.outputs[0], _computed_reshape(ctx, node, ctx.tensor(value), target, allowed))
    shape = _wanted(numbers, ctx.shape(value), allowed)
    rest = known(ctx.shape(value)[1:])
    # A free size in front may be another one than before: (N, 4, 6) to (-1, 6) is no flattening.
    if len(shape) == 2 and ctx.rank(value) > 2 and rest is not None and shape[1] == math.prod(rest):
        node.outputs[0].shape = ir.Shape(shape)
        return ctx.flatten(node.outputs[0], value)
    if _kept_order(ctx, node.outputs[0], value, shape):
        return None
    tensor = ctx.tensor(value)
    if sum(size is None for size in shape) <= 1:
        return ctx.set(node.outputs[0], ctx.reshape(tensor, shape))
    pieces = [_piece(ctx, tensor, axis, number, allowed) for axis, number in enumerate(numbers)]
    return ctx.set(node.outputs[0], parts.reshaped(ctx, tensor, parts.joined(ctx, pieces), shape))


@lowers("Flatten", quantized=Quantized.SAME, dtypes=_ALL)
def flatten(ctx: Context, node: ir.Node) -> None:
    """Two axes: what stands before `axis`, and the rest."""
    value = given(node, 0)
    shape = ctx.shape(value)
    axis = parts.front(attr_int(node, "axis", 1), len(shape))
    wanted = tuple(_product(piece) for piece in (shape[:axis], shape[axis:]))
    if axis == 1 and len(shape) > 2 and wanted[1] is not None:
        node.outputs[0].shape = ir.Shape(wanted)
        return ctx.flatten(node.outputs[0], value)
    tensor = ctx.tensor(value)
    if wanted != (None, None):
        return ctx.set(node.outputs[0], ctx.reshape(tensor, wanted))
    total = parts.sizes(ctx, tensor)
    first = parts.reduced(ctx, "REDUCE_PROD", parts.part(ctx, total, 0, axis), [0])
    target = parts.joined(ctx, [first, ctx.ints([-1])])
    return ctx.set(node.outputs[0], parts.reshaped(ctx, tensor, target, wanted))


@lowers("Squeeze", quantized=Quantized.SAME, dtypes=_ALL)
def squeeze(ctx: Context, node: ir.Node) -> None:
    """Without axes of size one."""
    tensor, axes = ctx.tensor(given(node, 0)), optional(node, 1)
    numbers = parts.numbers_of(ctx, axes)
    if axes is not None and numbers is None:
        return ctx.set(node.outputs[0], _computed_squeeze(ctx, tensor, axes))
    if numbers is None and None in tensor.shape:
        raise parts.refuse(node, "which sizes are one is known only when the model runs", "dynamic_shape")
    gone = [axis for axis, size in enumerate(tensor.shape) if size == 1]
    if numbers is not None:
        gone = sorted(parts.front(axis, tensor.rank) for axis in numbers)
    shape = tuple(size for axis, size in enumerate(tensor.shape) if axis not in gone)
    if sum(size is None for size in shape) <= 1:
        return ctx.set(node.outputs[0], ctx.reshape(tensor, shape))
    return ctx.set(node.outputs[0], ctx.emit("SQUEEZE", [tensor], tensor.spec(shape), squeezeDims=gone))


@lowers("Unsqueeze", quantized=Quantized.SAME, dtypes=_ALL)
def unsqueeze(ctx: Context, node: ir.Node) -> None:
    """With new axes of size one."""
    tensor, axes = ctx.tensor(given(node, 0)), given(node, 1)
    rank = tensor.rank + parts.length(ctx, axes)
    numbers = parts.numbers_of(ctx, axes)
    if tensor.rank == 0:
        return ctx.set(node.outputs[0], ctx.reshape(tensor, (1,) * rank))
    if numbers is None:
        return ctx.set(node.outputs[0], _computed_unsqueeze(ctx, tensor, axes, rank))
    new = sorted(parts.front(axis, rank) for axis in numbers)
    shape = list(tensor.shape)
    for axis in new:
        shape.insert(axis, 1)
    if sum(size is None for size in shape) > 1:
        for axis in new:
            wider = tensor.spec((*tensor.shape[:axis], 1, *tensor.shape[axis:]))
            tensor = ctx.emit("EXPAND_DIMS", [tensor, ctx.ints(axis)], wider)
        return ctx.set(node.outputs[0], tensor)
    return ctx.set(node.outputs[0], ctx.reshape(tensor, shape))


@lowers("Expand", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def expand(ctx: Context, node: ir.Node) -> None:
    """Broadcast to the common shape of the tensor and of what is asked."""
    tensor, target = ctx.tensor(given(node, 0)), given(node, 1)
    numbers = parts.numbers_of(ctx, target)
    if numbers is not None:
        shape = broadcast(tensor.shape, tuple(numbers))
        wanted = ctx.ints(numbers)
    else:
        shape = _declared(node, max(tensor.rank, parts.length(ctx, target)))
        wanted = parts.vector(ctx, parts.whole(ctx, target))
    if tensor.rank == 0 or (numbers is not None and not numbers):
        whole = wanted if tensor.rank == 0 else parts.sizes(ctx, tensor)
    elif known(shape) is not None and numbers is not None:
        whole = ctx.ints(known(shape) or ())
    else:
        both = [parts.sizes(ctx, tensor), wanted]
        whole = ctx.emit("BROADCAST_ARGS", both, Spec((len(shape),), D.INT32))
    if numbers is not None:
        return ctx.set(node.outputs[0], parts.expanded(ctx, tensor, shape, whole))
    return ctx.set(node.outputs[0], ctx.emit("BROADCAST_TO", [tensor, whole], tensor.spec(shape)))


@lowers("Shape")
def shape_(ctx: Context, node: ir.Node) -> None:
    """Sizes, from `start` to `end`."""
    value = given(node, 0)
    rank = ctx.rank(value)
    start, end = attr_int(node, "start"), attr_int(node, "end", rank)
    start, end = (min(max(parts.front(place, rank), 0), rank) for place in (start, end))
    count = max(end - start, 0)
    wanted = known(ctx.shape(value)[start : start + count])
    if wanted is not None:
        return ctx.set(node.outputs[0], ctx.ints(wanted, D.INT64.numpy().type))
    vector = parts.sizes(ctx, ctx.tensor(value), D.INT64)
    return ctx.set(node.outputs[0], vector if count == rank else parts.part(ctx, vector, start, count))


@lowers("Size")
def size(ctx: Context, node: ir.Node) -> None:
    """Number of elements."""
    total = _product(ctx.shape(given(node, 0)))
    if total is not None:
        return ctx.set(node.outputs[0], ctx.ints(total, D.INT64.numpy().type))
    vector = parts.sizes(ctx, ctx.tensor(given(node, 0)), D.INT64)
    return ctx.set(node.outputs[0], parts.reduced(ctx, "REDUCE_PROD", vector, [0], keep=False))


def _kept_order(ctx: Context, out: ir.Value, value: ir.Value, shape: Shape) -> bool:
    """Reshape in the order in which `value` is held, where that moves nothing or ends channels last."""
    _, perm = ctx.any_layout(value)
    if perm == layout.identity(len(perm)) or ctx.is_held(value, layout.identity(len(perm))):
        return False
    found = regroup.groups(ctx.shape(value), shape)
    orders = None if found is None else regroup.carried(perm, found)
    if orders is None or (orders[0] != perm and orders[1] != layout.channels_last(len(shape))):
        return False
    tensor = ctx.in_order(value, orders[0])
    ctx.set(out, ctx.reshape(tensor, layout.permuted(shape, orders[1])), orders[1])
    return True


def _wanted(numbers: Sequence[int], shape: Shape, allowed: bool) -> Shape:
    """The shape that the numbers ask of a tensor of `shape`; -1 is computed where everything is known."""
    wanted = [
        shape[axis] if number == 0 and not allowed else None if number == -1 else number
        for axis, number in enumerate(numbers)
    ]
    sizes, rest = known(shape), _product(tuple(item for item in wanted if item is not None))
    if -1 in numbers and sizes is not None and wanted.count(None) == 1 and rest:
        wanted[list(numbers).index(-1)] = math.prod(sizes) // rest
    return tuple(wanted)


def _piece(ctx: Context, tensor: Tensor, axis: int, number: int, allowed: bool) -> Tensor:
    return parts.size(ctx, tensor, axis) if number == 0 and not allowed else ctx.ints([number])


def _declared(node: ir.Node, rank: int) -> Shape:
    """What is known of the output's shape, which has `rank` axes."""
    shape = node.outputs[0].shape
    if shape is None or len(shape) != rank:
        return (None,) * rank
    return tuple(item if isinstance(item, int) else None for item in shape)


def _computed_reshape(ctx: Context, node: ir.Node, tensor: Tensor, target: ir.Value, allowed: bool) -> Tensor:
    rank = parts.length(ctx, target)
    wanted = parts.whole(ctx, target)
    if not allowed and tensor.rank and rank:
        kept = min(rank, tensor.rank)
        pieces = [parts.part(ctx, parts.sizes(ctx, tensor), 0, kept)]
        if rank > kept:
            pieces.append(ctx.ints([1] * (rank - kept)))
        zero = parts.compare(ctx, "EQUAL", wanted, ctx.ints(0))
        wanted = parts.select(ctx, zero, parts.joined(ctx, pieces), wanted)
    return ctx.emit("RESHAPE", [tensor, wanted], tensor.spec(_declared(node, rank)))


def _chosen(ctx: Context, axes: ir.Value, rank: int) -> Tensor:
    """For each of `rank` axes whether it is among the computed `axes`."""
    places = parts.counted_from_front(ctx, parts.vector(ctx, parts.whole(ctx, axes)), ctx.ints(rank))
    column = ctx.reshape(places, (places.shape[0], 1))
    every = ctx.const(np.arange(rank, dtype=np.int32)[None])
    equal = parts.compare(ctx, "EQUAL", column, every)
    return parts.reduced(ctx, "REDUCE_ANY", equal, [0], keep=False)


def _computed_squeeze(ctx: Context, tensor: Tensor, axes: ir.Value) -> Tensor:
    rank = tensor.rank - parts.length(ctx, axes)
    if rank == 0:
        return ctx.reshape(tensor, ())
    kept = ctx.unary("LOGICAL_NOT", _chosen(ctx, axes, tensor.rank))
    places = ctx.emit("WHERE", [kept], Spec((None, 1), D.INT64))
    wanted = parts.gather(ctx, parts.sizes(ctx, tensor), ctx.reshape(places, (rank,)), 0)
    return ctx.emit("RESHAPE", [tensor, wanted], tensor.spec((None,) * rank))


def _computed_unsqueeze(ctx: Context, tensor: Tensor, axes: ir.Value, rank: int) -> Tensor:
    new = _chosen(ctx, axes, rank)
    old = ctx.cast(ctx.unary("LOGICAL_NOT", new), D.INT32)
    count = ctx.emit("CUMSUM", [old, ctx.ints(0)], old.spec())
    places = ctx.binary("MAXIMUM", parts.minus(ctx, count, 1), ctx.ints(0))
    wanted = parts.select(ctx, new, ctx.ints(1), parts.gather(ctx, parts.sizes(ctx, tensor), places, 0))
    return ctx.emit("RESHAPE", [tensor, wanted], tensor.spec((None,) * rank))


def _product(shape: Shape) -> int | None:
    sizes = known(shape)
    return None if sizes is None else math.prod(sizes)
