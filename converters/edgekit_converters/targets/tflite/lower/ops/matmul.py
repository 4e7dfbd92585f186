"""MatMul of any ranks, and products of integers.

Facts by trial (ai_edge_litert 2.3.0): BATCH_MATMUL takes FLOAT with broadcasting of the axes in front (up to
6 axes), not int32 or int64; an inner size of zero, and an outer one through XNNPACK, fail.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context, broadcast
from edgekit_converters.targets.tflite.lower.dense import dense
from edgekit_converters.targets.tflite.lower.integers import halved, stablehlo
from edgekit_converters.targets.tflite.lower.numbers import FLOATS, D, widened
from edgekit_converters.targets.tflite.lower.parts import given, optional
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor, known

_MOST_AXES = 6
_INTEGERS = frozenset({D.INT32, D.INT64, D.UINT64, D.DOUBLE})


@lowers("MatMul", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def matmul(ctx: Context, node: ir.Node) -> None:
    """numpy's matmul."""
    left, right = given(node, 0), given(node, 1)
    if _is_dense(ctx, left, right):
        follower, bias = _bias(ctx, node)
        return dense(ctx, follower, left, right, bias)
    if ctx.pattern is not None:
        return _quantized(ctx, node, left, right)
    first, second = ctx.tensor(left), ctx.tensor(right)
    if first.dtype in (D.FLOAT, D.FLOAT16):
        if max(first.rank, second.rank) > _MOST_AXES:
            raise parts.refuse(node, f"of more than {_MOST_AXES} axes", "unsupported_attribute")
        result = product(ctx, widened(ctx, first, FLOATS), widened(ctx, second, FLOATS))
    else:
        result = integer_product(ctx, widened(ctx, first, _INTEGERS), widened(ctx, second, _INTEGERS))
    return ctx.set(node.outputs[0], ctx.cast(result, first.dtype))


def _bias(ctx: Context, node: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """The node whose output the kernel computes: an Add of one number a column that alone reads `node`, or
    `node` itself; and the numbers."""
    out = node.outputs[0]
    uses, width = tuple(out.uses()), ctx.shape(given(node, 1))[-1]
    if ctx.pattern is not None or len(uses) != 1 or out.is_graph_output() or uses[0].node.op_type != "Add":
        return node, None
    add = uses[0].node
    bias = given(add, 1 - uses[0].idx)
    array = ctx.constant(bias)
    if array is None or array.size != width or array.shape[-1:] != (width,) or array.ndim > ctx.rank(out):
        return node, None
    ctx.done.add(add)
    return add, bias


def _is_dense(ctx: Context, left: ir.Value, right: ir.Value) -> bool:
    """Whether the right side is a constant matrix that FULLY_CONNECTED takes."""
    if ctx.dtype(left) is not D.FLOAT or ctx.resolved(right).const_value is None:
        return False
    return ctx.rank(right) == 2 and ctx.rank(left) >= 2 and 0 not in ctx.shape(right)


@lowers("MatMulInteger")
def matmul_integer(ctx: Context, node: ir.Node) -> None:
    """Product of 8-bit integers less their zero points, in int32."""
    left = _centred(ctx, given(node, 0), optional(node, 2), column=True)
    right = _centred(ctx, given(node, 1), optional(node, 3), column=False)
    ctx.set(node.outputs[0], integer_product(ctx, left, right))


def product(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    """BATCH_MATMUL; vectors are matrices for the time being."""
    first = left if left.rank > 1 else ctx.reshape(left, (1, left.shape[0]))
    second = right if right.rank > 1 else ctx.reshape(right, (right.shape[0], 1))
    shape = (*broadcast(first.shape[:-2], second.shape[:-2]), first.shape[-2], second.shape[-1])
    if 0 in (first.shape[-1], *shape) and known(shape) is not None:
        made = ctx.const(np.zeros(known(shape) or (), np.float32))
    else:
        made = ctx.emit("BATCH_MATMUL", [first, second], Spec(shape, left.dtype))
    return _without_ones(ctx, made, left.rank, right.rank)


def integer_product(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    """Every pair multiplied, and the products summed: the kernel is for float32 only."""
    first = left if left.rank > 1 else ctx.reshape(left, (1, left.shape[0]))
    second = right if right.rank > 1 else ctx.reshape(right, (right.shape[0], 1))
    rows = _with_axis(ctx, first, first.rank)
    columns = _with_axis(ctx, second, second.rank - 2)
    if left.dtype in (D.DOUBLE, D.UINT64):
        pairs = stablehlo(ctx, "MUL", rows, columns)
        kept = halved(ctx, "ADD", pairs, [pairs.rank - 2])
        total = ctx.reshape(kept, (*kept.shape[:-2], kept.shape[-1]))
    else:
        pairs = parts.times(ctx, rows, columns)
        total = parts.reduced(ctx, "SUM", pairs, [pairs.rank - 2], keep=False)
    return _without_ones(ctx, total, left.rank, right.rank)


def _with_axis(ctx: Context, tensor: Tensor, axis: int) -> Tensor:
    shape = (*tensor.shape[:axis], 1, *tensor.shape[axis:])
    return ctx.emit("EXPAND_DIMS", [tensor, ctx.ints(axis)], tensor.spec(shape))


def _without_ones(ctx: Context, made: Tensor, left: int, right: int) -> Tensor:
    gone = [axis for axis, rank in ((made.rank - 2, left), (made.rank - 1, right)) if rank == 1]
    if not gone:
        return made
    shape = [size for axis, size in enumerate(made.shape) if axis not in gone]
    return ctx.emit("SQUEEZE", [made], made.spec(shape), squeezeDims=gone)


def _quantized(ctx: Context, node: ir.Node, left: ir.Value, right: ir.Value) -> None:
    first, second = ctx.tensor(left), ctx.tensor(right)
    if min(first.rank, second.rank) < 2 or first.rank != second.rank:
        raise parts.refuse(node, "an integer product of different ranks", "unsupported_attribute")
    ctx.set(node.outputs[0], ctx.emit("BATCH_MATMUL", [first, second], ctx.output(node)))


def _centred(ctx: Context, value: ir.Value, zero: ir.Value | None, *, column: bool) -> Tensor:
    """Less the zero point: one number, or one for each row of the left and each column of the right."""
    tensor = ctx.cast(ctx.tensor(value), D.INT32)
    if zero is None:
        return tensor
    point = ctx.cast(ctx.tensor(zero), D.INT32)
    if column and point.rank == 1 and point.shape != (1,):
        point = ctx.reshape(point, (point.shape[0], 1))
    return parts.minus(ctx, tensor, point)
