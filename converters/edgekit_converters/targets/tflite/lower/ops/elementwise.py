"""Arithmetic with broadcasting: Add, Sub, Mul, Div, Mod, Pow, Max, Min, Sum, Mean.

Integers follow ONNX: Div truncates, Mod follows the divisor (``fmod=1``: the dividend), everything else
wraps. Which types kernels take: `numbers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context, broadcast
from edgekit_converters.targets.tflite.lower.integers import divided, exact_only, power, stablehlo
from edgekit_converters.targets.tflite.lower.numbers import FLOATS, NUMBERS, D, widened
from edgekit_converters.targets.tflite.lower.parts import given
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Perm, Tensor

_EXTREMES = NUMBERS | {D.INT8, D.UINT8, D.INT16}


@lowers("Add", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def add(ctx: Context, node: ir.Node) -> None:
    """Sum; a following Relu is fused."""
    _arithmetic(ctx, node, "ADD")


@lowers("Sub", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def sub(ctx: Context, node: ir.Node) -> None:
    """Difference."""
    _arithmetic(ctx, node, "SUB")


@lowers("Mul", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def mul(ctx: Context, node: ir.Node) -> None:
    """Product."""
    _arithmetic(ctx, node, "MUL")


@lowers("Div")
def div(ctx: Context, node: ir.Node) -> None:
    """Quotient; of integers the part before the point."""
    if ctx.dtype(given(node, 0)) in (D.FLOAT, D.FLOAT16):
        return _arithmetic(ctx, node, "DIV")
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    exact_only(left.dtype, node)
    wide = widened(ctx, left, {D.INT32, D.INT64}), widened(ctx, right, {D.INT32, D.INT64})
    return _finish(ctx, node, divided(ctx, *wide), perm, left.dtype)


@lowers("Mod")
def mod(ctx: Context, node: ir.Node) -> None:
    """Remainder with the sign of the divisor, or with that of the dividend (``fmod=1``)."""
    (left, right), perm = ctx.align([given(node, 0), given(node, 1)])
    exact_only(left.dtype, node)
    wide = widened(ctx, left, NUMBERS), widened(ctx, right, NUMBERS)
    if not attr_int(node, "fmod"):
        result = ctx.binary("FLOOR_MOD", *wide)
    elif wide[0].dtype is D.FLOAT:
        result = _float_fmod(ctx, *wide)
    else:
        result = _integer_fmod(ctx, *wide)
    _finish(ctx, node, result, perm, left.dtype)


@lowers("Pow")
def pow_(ctx: Context, node: ir.Node) -> None:
    """Power; the result has the type of the base."""
    (base, exponent), perm = ctx.align([given(node, 0), given(node, 1)])
    number = ctx.constant(given(node, 1))
    if base.dtype in (D.FLOAT, D.FLOAT16):
        result = _float_power(ctx, widened(ctx, base, FLOATS), exponent, number)
    else:
        exact_only(base.dtype, node)
        result = power(ctx, node, base, exponent, number)
    _finish(ctx, node, result, perm, base.dtype)


@lowers("Max", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def max_(ctx: Context, node: ir.Node) -> None:
    """Largest of any number of tensors."""
    _fold(ctx, node, "MAXIMUM")


@lowers("Min", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def min_(ctx: Context, node: ir.Node) -> None:
    """Smallest of any number of tensors."""
    _fold(ctx, node, "MINIMUM")


@lowers("Sum")
def sum_(ctx: Context, node: ir.Node) -> None:
    """Sum of any number of tensors; of two it is an Add."""
    if len(node.inputs) == 2:
        return _arithmetic(ctx, node, "ADD")
    return _fold(ctx, node, "ADD")


@lowers("Mean")
def mean(ctx: Context, node: ir.Node) -> None:
    """Mean of any number of tensors."""
    tensors, perm = ctx.align([given(node, index) for index in range(len(node.inputs))])
    wide = [widened(ctx, item, FLOATS) for item in tensors]
    total = reduce(lambda left, right: ctx.binary("ADD", left, right), wide)
    _finish(ctx, node, parts.over(ctx, total, float(len(wide))), perm, tensors[0].dtype)


def _arithmetic(ctx: Context, node: ir.Node, op: str) -> None:
    tensors, perm = ctx.align([given(node, 0), given(node, 1)])
    dtype = tensors[0].dtype
    if tensors[0].quant is not None or dtype is D.FLOAT:
        activation, value = ctx.fused(node)
        spec = ctx.output(value, perm)
        ctx.set(value, ctx.emit(op, tensors, spec, fusedActivationFunction=activation), perm)
    else:
        _finish(ctx, node, _computed(ctx, op, tensors), perm, dtype)


def _computed(ctx: Context, op: str, tensors: Sequence[Tensor]) -> Tensor:
    """Folded from the left, in a type that has the kernel."""
    if tensors[0].dtype in (D.DOUBLE, D.UINT64):
        return reduce(lambda left, right: stablehlo(ctx, op, left, right), tensors)
    kinds = _EXTREMES if op in ("MAXIMUM", "MINIMUM") else NUMBERS
    wide = [widened(ctx, item, kinds) for item in tensors]
    return reduce(lambda left, right: ctx.binary(op, left, right), wide)


def _fold(ctx: Context, node: ir.Node, op: str) -> None:
    tensors, perm = ctx.align([given(node, index) for index in range(len(node.inputs))])
    if tensors[0].quant is not None:
        made = reduce(lambda left, right: _on_one_grid(ctx, op, left, right), tensors)
        return ctx.set(node.outputs[0], made, perm)
    return _finish(ctx, node, _computed(ctx, op, tensors), perm, tensors[0].dtype)


def _on_one_grid(ctx: Context, op: str, left: Tensor, right: Tensor) -> Tensor:
    return ctx.emit(op, [left, right], left.spec(broadcast(left.shape, right.shape)))


def _finish(ctx: Context, node: ir.Node, tensor: Tensor, perm: Perm, dtype: ir.DataType) -> None:
    """`tensor` in the node's type is its output; an operand of a lower rank may have been alone."""
    result = ctx.cast(tensor, dtype)
    ctx.set(node.outputs[0], result, perm if len(perm) == result.rank else None)


def _float_fmod(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    """C's fmod is exact; FLOOR_MOD of absolute values is fmod, and the dividend gives its sign."""
    rest = ctx.binary("FLOOR_MOD", ctx.unary("ABS", left), ctx.unary("ABS", right))
    negative = parts.compare(ctx, "LESS", left, parts.like(ctx, left, 0))
    return parts.select(ctx, negative, ctx.unary("NEG", rest), rest)


def _integer_fmod(ctx: Context, left: Tensor, right: Tensor) -> Tensor:
    rest, zero = ctx.binary("FLOOR_MOD", left, right), parts.like(ctx, left, 0)
    signs = parts.compare(ctx, "LESS", left, zero), parts.compare(ctx, "LESS", right, zero)
    differ = parts.compare(ctx, "NOT_EQUAL", *signs)
    uneven = parts.compare(ctx, "NOT_EQUAL", rest, zero)
    both = parts.compare(ctx, "LOGICAL_AND", differ, uneven)
    return parts.select(ctx, both, parts.minus(ctx, rest, right), rest)


def _float_power(ctx: Context, base: Tensor, exponent: Tensor, number: np.ndarray | None) -> Tensor:
    if number is not None and number.size == 1:
        special = {1.0: None, 2.0: "SQUARE", 0.5: "SQRT"}
        op = special.get(float(number.reshape(-1)[0]), "POW")
        if op in ("SQUARE", "SQRT") and broadcast(base.shape, exponent.shape) == base.shape:
            return ctx.unary(op, base)
    return ctx.binary("POW", base, ctx.cast(exponent, D.FLOAT))
