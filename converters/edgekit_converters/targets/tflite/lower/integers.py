"""Arithmetic that LiteRT has no kernel for, exact by construction: division and powers of integers, and
sums and products of the types that only STABLEHLO ops take (float64, uint64)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context, broadcast
from edgekit_converters.targets.tflite.lower.numbers import D, widened
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor, known

_ROUNDS = 4
_STABLEHLO = {
    "ADD": "STABLEHLO_ADD",
    "MUL": "STABLEHLO_MULTIPLY",
    "MAXIMUM": "STABLEHLO_MAXIMUM",
    "MINIMUM": "STABLEHLO_MINIMUM",
}


def exact_only(dtype: ir.DataType, node: ir.Node) -> None:
    """Raises:
    Refusal: no kernel computes in this type, nor in one that holds it.
    """
    if dtype in (D.DOUBLE, D.UINT64):
        raise parts.refuse(node, f"LiteRT does not compute this in {dtype.name.lower()}", "unsupported_type")


def divided(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    """The quotient without its fraction (int32, int64)."""
    if left.dtype is D.INT32:
        return ctx.binary("DIV", left, right)
    return _long_division(ctx, left, right)


def _long_division(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    """int64, by way of float32 estimates of what is left.

    FLOOR_MOD is exact in int64, so left - rest is a multiple of right: each round estimates the missing
    part of the quotient to 22 bits, and four rounds leave nothing of 64. Wrapping does not matter.
    """
    zero = parts.like(ctx, left, 0)
    rest = ctx.binary("FLOOR_MOD", left, right)
    missing = parts.minus(ctx, left, rest)
    divisor = ctx.cast(right, D.FLOAT)
    quotient = zero
    for _ in range(_ROUNDS):
        estimate = ctx.unary("ROUND", parts.over(ctx, ctx.cast(missing, D.FLOAT), divisor))
        step = ctx.cast(estimate, D.INT64)
        quotient = parts.plus(ctx, quotient, step)
        missing = parts.minus(ctx, missing, parts.times(ctx, step, right))
    uneven = parts.compare(ctx, "NOT_EQUAL", rest, zero)
    below = parts.compare(ctx, "LESS", quotient, zero)
    # rest follows the divisor: rounded down, where ONNX cuts towards zero.
    up = parts.compare(ctx, "LOGICAL_AND", uneven, below)
    return parts.plus(ctx, quotient, ctx.cast(up, D.INT64))


def stablehlo(ctx: Context, op: str, left: Tensor, right: Tensor) -> Tensor:
    """`op` on float64 or uint64.

    Raises:
        Refusal: there is no such kernel, or shapes that differ are not known.
    """
    if op == "SUB":
        minus_one = np.array(-1.0 if left.dtype is D.DOUBLE else 2**64 - 1, left.dtype.numpy())
        return stablehlo(ctx, "ADD", left, stablehlo(ctx, "MUL", right, ctx.const(minus_one)))
    if op not in _STABLEHLO:
        raise Refusal(
            f"LiteRT has no {op} on {left.dtype.name.lower()}",
            remedy="use float32 or int64 in the model, or an onnx target",
            code="unsupported_type",
        )
    same = same_shape(ctx, left, right)
    return ctx.emit(_STABLEHLO[op], list(same), same[0].spec())


def halved(ctx: Context, op: str, tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """Reduce float64 or uint64 over `axes` (kept, of size one), half against half.

    Raises:
        Refusal: sizes are known only when the model runs, or there is nothing to reduce.
    """
    shape = known(tensor.shape)
    if shape is None or 0 in shape:
        raise Refusal(
            f"reducing {tensor.dtype.name.lower()} of shape {list(tensor.shape)}",
            remedy="use float32 in the model, or an onnx target",
            code="dynamic_shape" if shape is None else "unsupported_type",
        )
    kept = [axis for axis in range(tensor.rank) if axis not in axes]
    moved = ctx.transpose(tensor, (*axes, *kept))
    row = math.prod(shape[axis] for axis in kept)
    rows = [ctx.reshape(moved, (math.prod(shape[axis] for axis in axes), row))]
    while (rows[0].shape[0] or 0) > 1 or len(rows) > 1:
        rows = _folded(ctx, op, rows, row)
    return ctx.reshape(rows[0], [1 if axis in axes else size for axis, size in enumerate(shape)])


def _folded(ctx: Context, op: str, rows: list[Tensor], row: int) -> list[Tensor]:
    """The first block halved on itself; an odd row left over joins at the end."""
    first, *rest = rows
    count = first.shape[0] or 1
    if count == 1:
        return [stablehlo(ctx, op, first, rest[0]), *rest[1:]]
    half = count // 2
    pieces = [
        ctx.emit("SLICE", [first, ctx.ints([start, 0]), ctx.ints([size, row])], first.spec((size, row)))
        for start, size in ((0, half), (half, half), (2 * half, count - 2 * half))
        if size
    ]
    return [stablehlo(ctx, op, pieces[0], pieces[1]), *pieces[2:], *rest]


def same_shape(ctx: Context, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both broadcast to one shape, for kernels that do not."""
    if left.shape == right.shape and known(left.shape) is not None:
        return left, right
    shape = broadcast(left.shape, right.shape)
    first, second = parts.sizes(ctx, left), parts.sizes(ctx, right)
    whole = known(shape)
    if whole is not None:
        wanted = ctx.ints(whole)
    elif left.rank == 0 or right.rank == 0:
        wanted = second if left.rank == 0 else first
    else:
        wanted = ctx.emit("BROADCAST_ARGS", [first, second], Spec((len(shape),), D.INT32))
    return parts.expanded(ctx, left, shape, wanted), parts.expanded(ctx, right, shape, wanted)


def power(ctx: Context, node: ir.Node, base: Tensor, exponent: Tensor, number: np.ndarray | None) -> Tensor:
    """An integer to an integer power.

    Raises:
        Refusal: the exponent is no whole number that is known to be one, or it is negative.
    """
    if exponent.dtype in (D.FLOAT, D.FLOAT16, D.DOUBLE) and (
        number is None or (number != np.floor(number)).any()
    ):
        raise parts.refuse(node, "an integer to a computed fractional power", "unsupported_type")
    if number is not None and (number < 0).any():
        raise parts.refuse(node, "an integer to a negative power", "unsupported_attribute")
    count = ctx.const(number.astype(np.int32)) if number is not None else ctx.cast(exponent, D.INT32)
    wide = widened(ctx, base, {D.INT32, D.INT64})
    if wide.dtype is D.INT32:
        return ctx.binary("POW", wide, count)
    return _squarings(ctx, wide, count)


def _squarings(ctx: Context, base: Tensor, count: Tensor) -> Tensor:
    """Square and multiply; beyond 63 only 0, 1 and -1 do not overflow, and their parity decides."""
    two = parts.like(ctx, count, 2)
    parity = ctx.binary("FLOOR_MOD", count, two)
    beyond = parts.compare(ctx, "GREATER", count, parts.like(ctx, count, 62))
    left = parts.select(ctx, beyond, parts.plus(ctx, parity, 62), count)
    result, square, one = parts.like(ctx, base, 1), base, parts.like(ctx, base, 1)
    for bit in range(6):
        shifted = ctx.binary("RIGHT_SHIFT", left, parts.like(ctx, left, bit))
        is_set = parts.compare(ctx, "EQUAL", ctx.binary("FLOOR_MOD", shifted, two), parts.like(ctx, left, 1))
        result = parts.times(ctx, result, parts.select(ctx, is_set, square, one))
        square = parts.times(ctx, square, square) if bit < 5 else square
    return result
