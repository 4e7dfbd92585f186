"""Small pieces that many lowerings put together: sizes, slices, comparisons, selections, counting.

All take and give tensors of the TFLite graph in logical order. Shapes and places are int32 here; ONNX's
int64 is brought down by `place`, which keeps "as far as there is" (2**63 - 1) what it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower.context import Context, broadcast
from edgekit_converters.targets.tflite.lower.tensors import Shape, Spec, Tensor, known

D = ir.DataType
FAR = 2**30
"""A place beyond every axis, small enough that a size can be added to it."""


def given(node: ir.Node, index: int) -> ir.Value:
    """The input at `index`.

    Raises:
        Refusal: it is missing.
    """
    value = optional(node, index)
    if value is None:
        raise Refusal(f"{node.op_type} {node.name}: input {index} is missing", code="corrupt_source")
    return value


def optional(node: ir.Node, index: int) -> ir.Value | None:
    """The input at `index`, None when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def refuse(node: ir.Node, why: str, code: str) -> Refusal:
    """The refusal of `node`, to be raised."""
    return Refusal(
        f"{node.op_type} {node.name}: {why}", code=code, remedy="use an onnx target for this model"
    )


def numbers_of(ctx: Context, value: ir.Value | None) -> list[int] | None:
    """A constant vector of integers; None when it is absent or computed."""
    array = None if value is None else ctx.constant(value)
    return None if array is None else [int(item) for item in array.reshape(-1)]


def front(axis: int, rank: int) -> int:
    """`axis` counted from the front."""
    return axis + rank if axis < 0 else axis


def length(ctx: Context, value: ir.Value) -> int:
    """How many elements a vector of axes, starts or pads has.

    Raises:
        Refusal: known only when the model runs.
    """
    shape = known(ctx.shape(value))
    if shape is None:
        raise Refusal(f"the length of {value.name!r} is known only when the model runs", code="dynamic_shape")
    return int(np.prod(shape, dtype=np.int64))


# Sizes and places ---------------------------------------------------------------------------------


def sizes(ctx: Context, tensor: Tensor, dtype: ir.DataType = D.INT32) -> Tensor:
    """The shape as a vector: a constant when it is known."""
    shape = known(tensor.shape)
    if shape is not None:
        return ctx.ints(shape, dtype.numpy().type)
    kind = 2 if dtype is D.INT32 else 4
    return ctx.emit("SHAPE", [tensor], Spec((tensor.rank,), dtype), outType=kind)


def size(ctx: Context, tensor: Tensor, axis: int) -> Tensor:
    """One size as a vector of length one."""
    one = tensor.shape[axis]
    return ctx.ints([one]) if one is not None else part(ctx, sizes(ctx, tensor), axis, 1)


def part(ctx: Context, vector: Tensor, start: int, count: int) -> Tensor:
    """`count` elements of a vector."""
    return ctx.emit("SLICE", [vector, ctx.ints([start]), ctx.ints([count])], vector.spec((count,)))


def whole(ctx: Context, value: ir.Value) -> Tensor:
    """A computed tensor of sizes or axes as int32: they fit."""
    return ctx.cast(ctx.tensor(value), D.INT32)


def place(ctx: Context, value: ir.Value) -> Tensor:
    """A computed tensor of places, sizes or axes as int32; what is beyond every axis stays beyond."""
    tensor = ctx.tensor(value)
    if tensor.dtype is D.INT64:
        far = ctx.const(np.array(FAR, np.int64)), ctx.const(np.array(-FAR, np.int64))
        tensor = ctx.binary("MAXIMUM", ctx.binary("MINIMUM", tensor, far[0]), far[1])
    return ctx.cast(tensor, D.INT32)


def vector(ctx: Context, tensor: Tensor) -> Tensor:
    """A scalar or vector as a vector."""
    return tensor if tensor.rank == 1 else ctx.reshape(tensor, (1,) if tensor.rank == 0 else (None,))


def scalar(ctx: Context, tensor: Tensor) -> Tensor:
    """A tensor of one element as rank 0."""
    return tensor if tensor.rank == 0 else ctx.reshape(tensor, ())


def joined(ctx: Context, pieces: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Concatenation."""
    if len(pieces) == 1:
        return pieces[0]
    along = [piece.shape[axis] for piece in pieces]
    total = None if None in along else sum(item for item in along if item is not None)
    shape = [*pieces[0].shape]
    shape[axis] = total
    return ctx.emit("CONCATENATION", list(pieces), pieces[0].spec(shape), axis=axis)


def reshaped(ctx: Context, tensor: Tensor, shape: Tensor, spec: Shape) -> Tensor:
    """Reshape to a computed shape (int32) of which `spec` is known."""
    sizes_known = known(spec)
    if sizes_known is not None and shape.is_constant:
        return ctx.reshape(tensor, spec)
    return ctx.emit("RESHAPE", [tensor, shape], tensor.spec(spec))


def like(ctx: Context, tensor: Tensor, number: float) -> Tensor:
    """A scalar constant of the tensor's type."""
    return ctx.const(np.array(number, tensor.dtype.numpy()))


def on_grid(ctx: Context, tensor: Tensor, number: float) -> Tensor:
    """`number` as QuantizeLinear puts it on the grid of a quantized tensor."""
    assert tensor.quant is not None
    kind = tensor.dtype.numpy()
    ends = np.iinfo(kind)
    steps = np.rint(np.float32(number) / np.float32(tensor.quant.scale[0])) + tensor.quant.zero_point[0]
    return ctx.const(np.array(np.clip(steps, ends.min, ends.max), kind), quant=tensor.quant)


# Elementwise --------------------------------------------------------------------------------------


def compare(ctx: Context, op: str, left: Tensor, right: Tensor) -> Tensor:
    """A comparison, broadcasting."""
    return ctx.emit(op, [left, right], Spec(broadcast(left.shape, right.shape), D.BOOL))


def select(ctx: Context, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`yes` where the condition holds, else `no`; broadcasting."""
    shape = broadcast(condition.shape, yes.shape, no.shape)
    return ctx.emit("SELECT_V2", [condition, yes, no], Spec(shape, yes.dtype))


def plus(ctx: Context, left: Tensor, right: Tensor | float) -> Tensor:
    """Sum."""
    return ctx.binary("ADD", left, right if isinstance(right, Tensor) else like(ctx, left, right))


def minus(ctx: Context, left: Tensor | float, right: Tensor | float) -> Tensor:
    """Difference; at least one is a tensor."""
    first, second = _both(ctx, left, right)
    return ctx.binary("SUB", first, second)


def times(ctx: Context, left: Tensor, right: Tensor | float) -> Tensor:
    """Product."""
    return ctx.binary("MUL", left, right if isinstance(right, Tensor) else like(ctx, left, right))


def over(ctx: Context, left: Tensor | float, right: Tensor | float) -> Tensor:
    """Quotient."""
    first, second = _both(ctx, left, right)
    return ctx.binary("DIV", first, second)


def _both(ctx: Context, left: Tensor | float, right: Tensor | float) -> tuple[Tensor, Tensor]:
    if isinstance(left, Tensor):
        return left, right if isinstance(right, Tensor) else like(ctx, left, right)
    assert isinstance(right, Tensor)
    return like(ctx, right, left), right


def polynomial(ctx: Context, x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Horner's rule; the highest power's coefficient first."""
    total = plus(ctx, times(ctx, x, coefficients[0]), coefficients[1])
    for coefficient in coefficients[2:]:
        total = plus(ctx, times(ctx, total, x), coefficient)
    return total


# Counting and taking ------------------------------------------------------------------------------


def counted(ctx: Context, count: Tensor) -> Tensor:
    """0, 1, … below a scalar count, in its type."""
    return ctx.emit("RANGE", [like(ctx, count, 0), count, like(ctx, count, 1)], Spec((None,), count.dtype))


def iota(ctx: Context, tensor: Tensor, axis: int, dtype: ir.DataType = D.INT32) -> Tensor:
    """The place along `axis`, as a tensor of the rank of `tensor` that is one long along the other axes."""
    shape: list[int | None] = [1] * tensor.rank
    shape[axis] = tensor.shape[axis]
    count = tensor.shape[axis]
    if count is not None:
        return ctx.const(np.arange(count, dtype=dtype.numpy()).reshape([item or 0 for item in shape]))
    total = ctx.cast(scalar(ctx, size(ctx, tensor, axis)), dtype)
    return ctx.reshape(counted(ctx, total), shape)


def gather(ctx: Context, tensor: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Rows of `tensor` along `axis`; indices are not negative and within."""
    shape = (*tensor.shape[:axis], *indices.shape, *tensor.shape[axis + 1 :])
    return ctx.emit("GATHER", [tensor, indices], tensor.spec(shape), axis=axis)


def counted_from_front(ctx: Context, indices: Tensor, count: Tensor) -> Tensor:
    """Negative indices counted from the end of an axis of `count` (of the same type)."""
    negative = compare(ctx, "LESS", indices, like(ctx, indices, 0))
    return select(ctx, negative, plus(ctx, indices, count), indices)


def expanded(ctx: Context, tensor: Tensor, shape: Sequence[int | None], sizes_: Tensor) -> Tensor:
    """Broadcast to a computed shape (int32) of which `shape` is known."""
    if known(tuple(shape)) == tensor.shape:
        return tensor
    return ctx.emit("BROADCAST_TO", [tensor, sizes_], tensor.spec(shape))


def reduced(
    ctx: Context, op: str, tensor: Tensor, axes: Sequence[int], *, keep: bool = True, **fields: Any
) -> Tensor:
    """A reduction over constant axes."""
    shape = [
        1 if axis in axes else item for axis, item in enumerate(tensor.shape) if keep or axis not in axes
    ]
    return ctx.emit(op, [tensor, ctx.ints(axes)], tensor.spec(shape), keepDims=keep, **fields)
