"""Tensors made from few numbers: ConstantOfShape, Range, EyeLike, Trilu."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, attr_tensor
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import NUMBERS, widened
from edgekit_converters.targets.tflite.lower.parts import given, optional
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor, known


@lowers("ConstantOfShape")
def constant_of_shape(ctx: Context, node: ir.Node) -> None:
    """One number everywhere."""
    number = attr_tensor(node, "value")
    number = np.zeros((), np.float32) if number is None else number.reshape(())
    target = given(node, 0)
    sizes = parts.numbers_of(ctx, target)
    if sizes is None and parts.length(ctx, target) == 0:
        sizes = []
    if sizes is not None:
        return ctx.set(node.outputs[0], ctx.const(np.full(sizes, number)))
    spec = Spec((None,) * parts.length(ctx, target), ir.DataType.from_numpy(number.dtype))
    made = ctx.emit("FILL", [parts.vector(ctx, parts.whole(ctx, target)), ctx.const(number)], spec)
    return ctx.set(node.outputs[0], made)


@lowers("Range")
def range_(ctx: Context, node: ir.Node) -> None:
    """Numbers from `start` to below `limit`."""
    ends = [ctx.tensor(given(node, index)) for index in range(3)]
    wide = [parts.scalar(ctx, widened(ctx, item, NUMBERS)) for item in ends]
    start, limit, step = wide
    # The kernel fails where ONNX gives nothing: when the limit lies behind the start.
    number = ctx.constant(given(node, 2))
    if number is not None and number.size == 1:
        op = "MINIMUM" if float(number.reshape(-1)[0]) < 0 else "MAXIMUM"
        reached = ctx.binary(op, limit, start)
    else:
        down = parts.compare(ctx, "LESS", step, parts.like(ctx, step, 0))
        least, most = ctx.binary("MINIMUM", limit, start), ctx.binary("MAXIMUM", limit, start)
        reached = parts.select(ctx, down, least, most)
    made = ctx.emit("RANGE", [start, reached, step], Spec((None,), start.dtype))
    ctx.set(node.outputs[0], ctx.cast(made, ends[0].dtype))


@lowers("EyeLike")
def eye_like(ctx: Context, node: ir.Node) -> None:
    """Ones on one diagonal, zeros elsewhere; only the shape of the input counts."""
    value = given(node, 0)
    dtype = ir.DataType(attr_int(node, "dtype", int(ctx.dtype(value))))
    shape, k = known(ctx.shape(value)), attr_int(node, "k")
    if shape is not None:
        return ctx.set(node.outputs[0], ctx.const(np.eye(shape[0], shape[1], k=k, dtype=dtype.numpy())))
    tensor = ctx.tensor(value)
    rows = parts.plus(ctx, parts.iota(ctx, tensor, 0), k)
    here = parts.compare(ctx, "EQUAL", rows, parts.iota(ctx, tensor, 1))
    return ctx.set(node.outputs[0], ctx.cast(here, dtype))


@lowers("Trilu")
def trilu(ctx: Context, node: ir.Node) -> None:
    """The upper or lower triangle above or below the `k`-th diagonal, zeros elsewhere; every type."""
    tensor, offset = ctx.tensor(given(node, 0)), optional(node, 1)
    rows, columns = (parts.iota(ctx, tensor, axis) for axis in (tensor.rank - 2, tensor.rank - 1))
    edge = rows if offset is None else parts.plus(ctx, rows, parts.scalar(ctx, parts.place(ctx, offset)))
    op = "GREATER_EQUAL" if attr_int(node, "upper", 1) else "LESS_EQUAL"
    kept = parts.compare(ctx, op, columns, edge)
    ctx.set(node.outputs[0], _kept(ctx, kept, tensor))


def _kept(ctx: Context, condition: Tensor, tensor: Tensor) -> Tensor:
    return parts.select(ctx, condition, tensor, parts.like(ctx, tensor, 0))
