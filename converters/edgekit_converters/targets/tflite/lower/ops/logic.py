"""Comparisons, logic on bools, bits of integers, and Where.

Facts by trial (ai_edge_litert 2.3.0): comparisons take FLOAT, INT32, INT64 (EQUAL also BOOL) and abort the
process on int8 and uint8; BITWISE_XOR and RIGHT_SHIFT take every integer up to 32 bits; STABLEHLO_AND takes
every integer; there is no OR, no XOR of 64 bits and no left shift of unsigned integers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_str
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.integers import exact_only, same_shape
from edgekit_converters.targets.tflite.lower.numbers import NUMBERS, D, bitcast, widened
from edgekit_converters.targets.tflite.lower.parts import given
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Tensor

_COMPARISONS = {
    "Equal": "EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
}
_LOGIC = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL"}
_LONG = (D.INT64, D.UINT64)


@lowers(*_COMPARISONS)
def compare(ctx: Context, node: ir.Node) -> None:
    """A comparison."""
    op = _COMPARISONS[node.op_type]
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    if left.dtype is D.UINT64:
        left, right = (_ordered(ctx, item) for item in (left, right))
    exact_only(left.dtype, node)
    kinds = NUMBERS | {D.BOOL} if op == "EQUAL" else NUMBERS
    result = parts.compare(ctx, op, widened(ctx, left, kinds), widened(ctx, right, kinds))
    ctx.set(node.outputs[0], result, perm)


@lowers(*_LOGIC)
def logic(ctx: Context, node: ir.Node) -> None:
    """And, Or, Xor of bools."""
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    ctx.set(node.outputs[0], parts.compare(ctx, _LOGIC[node.op_type], left, right), perm)


@lowers("Not")
def not_(ctx: Context, node: ir.Node) -> None:
    """The other bool."""
    tensor, perm = ctx.any_layout(given(node, 0))
    ctx.set(node.outputs[0], ctx.unary("LOGICAL_NOT", tensor), perm)


@lowers("Where")
def where(ctx: Context, node: ir.Node) -> None:
    """One of two values by a condition; every type."""
    tensors, perm = ctx.align([given(node, index) for index in range(3)])
    ctx.set(node.outputs[0], parts.select(ctx, *tensors), perm)


@lowers("BitwiseAnd")
def bitwise_and(ctx: Context, node: ir.Node) -> None:
    """Bits that both have."""
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    ctx.set(node.outputs[0], _and(ctx, left, right), perm)


@lowers("BitwiseOr")
def bitwise_or(ctx: Context, node: ir.Node) -> None:
    """Bits that one or both have: the sum less what both have, wrapping."""
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    if left.dtype in _LONG:
        total = parts.plus(ctx, _signed(ctx, left), _signed(ctx, right))
        result = parts.minus(ctx, total, _signed(ctx, _and(ctx, left, right)))
        result = bitcast(ctx, result, left.dtype)
    else:
        result = _xor(ctx, _xor(ctx, left, right), _and(ctx, left, right))
    ctx.set(node.outputs[0], result, perm)


@lowers("BitwiseXor")
def bitwise_xor(ctx: Context, node: ir.Node) -> None:
    """Bits that only one has: the sum less twice what both have, wrapping."""
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    if left.dtype in _LONG:
        total = parts.plus(ctx, _signed(ctx, left), _signed(ctx, right))
        both = parts.times(ctx, _signed(ctx, _and(ctx, left, right)), 2)
        result = bitcast(ctx, parts.minus(ctx, total, both), left.dtype)
    else:
        result = _xor(ctx, left, right)
    ctx.set(node.outputs[0], result, perm)


@lowers("BitwiseNot")
def bitwise_not(ctx: Context, node: ir.Node) -> None:
    """-1 - x."""
    tensor, perm = ctx.any_layout(given(node, 0))
    if tensor.dtype in _LONG:
        result = bitcast(ctx, parts.minus(ctx, -1, _signed(ctx, tensor)), tensor.dtype)
    else:
        ones = np.array(-1, np.int64).astype(tensor.dtype.numpy())
        result = _xor(ctx, tensor, ctx.const(ones))
    ctx.set(node.outputs[0], result, perm)


@lowers("BitShift")
def bit_shift(ctx: Context, node: ir.Node) -> None:
    """Shift of unsigned integers."""
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    if attr_str(node, "direction") == "LEFT":
        result = _left_shift(ctx, left, right)
    elif left.dtype in _LONG:
        raise parts.refuse(node, "LiteRT does not shift 64 bits to the right", "unsupported_type")
    else:
        result = ctx.binary("RIGHT_SHIFT", left, right)
    ctx.set(node.outputs[0], result, perm)


def _left_shift(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    """A product with a power of two out of a table, in 64 bits, cut to the type."""
    table = ctx.const(np.left_shift(np.array(1, np.uint64), np.arange(64, dtype=np.uint64)).view(np.int64))
    places = ctx.cast(_signed(ctx, right) if right.dtype is D.UINT64 else right, D.INT32)
    factor = parts.gather(ctx, table, places, 0)
    wide = _signed(ctx, left) if left.dtype in _LONG else ctx.cast(left, D.INT64)
    product = parts.times(ctx, wide, factor)
    return bitcast(ctx, product, left.dtype) if left.dtype in _LONG else ctx.cast(product, left.dtype)


def _signed(ctx: Context, tensor: Tensor) -> Tensor:
    return bitcast(ctx, tensor, D.INT64)


def _ordered(ctx: Context, tensor: Tensor) -> Tensor:
    """uint64 as int64 in the same order."""
    return parts.plus(ctx, _signed(ctx, tensor), -(2**63))


def _and(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    first, second = same_shape(ctx, left, right)
    return ctx.emit("STABLEHLO_AND", [first, second], first.spec())


def _xor(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    return ctx.binary("BITWISE_XOR", left, right)
