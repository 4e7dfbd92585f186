"""Activations: one kernel where LiteRT has it, else the formula in float32."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_float, attr_str
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import FLOATS, NUMBERS, D, widened
from edgekit_converters.targets.tflite.lower.ops.unary import apply, log1p
from edgekit_converters.targets.tflite.lower.parts import given, like, optional
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Tensor

_BOUNDS = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def _kernel(ctx: Context, node: ir.Node, op: str, **fields: Any) -> None:
    """One kernel; quantized too."""
    tensor, perm = ctx.any_layout(given(node, 0))
    if tensor.quant is not None:
        return ctx.set(node.outputs[0], ctx.emit(op, [tensor], ctx.output(node, perm), **fields), perm)
    result = ctx.unary(op, widened(ctx, tensor, FLOATS), **fields)
    return ctx.set(node.outputs[0], ctx.cast(result, tensor.dtype), perm)


@lowers("Relu", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def relu(ctx: Context, node: ir.Node) -> None:
    """max(x, 0), of integers too."""
    if ctx.dtype(given(node, 0)).is_integer() and ctx.pattern is None:
        return apply(ctx, node, lambda ctx, x: ctx.binary("MAXIMUM", like(ctx, x, 0), x), NUMBERS)
    return _kernel(ctx, node, "RELU")


@lowers("Sigmoid", quantized=Quantized.FIXED, dtypes=("INT8", "INT16"))
def sigmoid(ctx: Context, node: ir.Node) -> None:
    """1 / (1 + exp(-x))."""
    _kernel(ctx, node, "LOGISTIC")


@lowers("Tanh", quantized=Quantized.FIXED, dtypes=("INT8", "INT16"))
def tanh(ctx: Context, node: ir.Node) -> None:
    """Hyperbolic tangent."""
    _kernel(ctx, node, "TANH")


@lowers("LeakyRelu", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def leaky_relu(ctx: Context, node: ir.Node) -> None:
    """x, or alpha x below zero."""
    _kernel(ctx, node, "LEAKY_RELU", alpha=attr_float(node, "alpha", 0.01))


@lowers("HardSwish", quantized=Quantized.FREE)
def hard_swish(ctx: Context, node: ir.Node) -> None:
    """x min(max(x + 3, 0), 6) / 6."""
    _kernel(ctx, node, "HARD_SWISH")


@lowers("Gelu", quantized=Quantized.FREE)
def gelu(ctx: Context, node: ir.Node) -> None:
    """x times the normal distribution's integral, exact or by tanh."""
    _kernel(ctx, node, "GELU", approximate=attr_str(node, "approximate", "none") == "tanh")


@lowers("Elu")
def elu(ctx: Context, node: ir.Node) -> None:
    """x, or alpha (exp(x) - 1) below zero: the kernel has alpha = 1 and works on the negative part."""
    apply(ctx, node, partial(_elu, alpha=attr_float(node, "alpha", 1.0)))


@lowers("Celu")
def celu(ctx: Context, node: ir.Node) -> None:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    alpha = attr_float(node, "alpha", 1.0)

    def function(ctx: Context, x: Tensor) -> Tensor:
        grown = ctx.unary("ELU", parts.over(ctx, x, alpha))
        return parts.times(ctx, grown, alpha)

    apply(ctx, node, function)


@lowers("Selu")
def selu(ctx: Context, node: ir.Node) -> None:
    """gamma (x, or alpha (exp(x) - 1) below zero)."""
    alpha = attr_float(node, "alpha", 1.67326319217681884765625)
    gamma = attr_float(node, "gamma", 1.05070102214813232421875)
    apply(ctx, node, lambda ctx, x: parts.times(ctx, _elu(ctx, x, alpha), gamma))


@lowers("HardSigmoid")
def hard_sigmoid(ctx: Context, node: ir.Node) -> None:
    """max(0, min(1, alpha x + beta))."""
    alpha, beta = attr_float(node, "alpha", 0.2), attr_float(node, "beta", 0.5)

    def function(ctx: Context, x: Tensor) -> Tensor:
        line = parts.plus(ctx, parts.times(ctx, x, alpha), beta)
        return _clipped(ctx, line, like(ctx, x, 0.0), like(ctx, x, 1.0))

    apply(ctx, node, function)


@lowers("ThresholdedRelu")
def thresholded_relu(ctx: Context, node: ir.Node) -> None:
    """x above alpha, else 0."""
    alpha = attr_float(node, "alpha", 1.0)

    def function(ctx: Context, x: Tensor) -> Tensor:
        above = parts.compare(ctx, "GREATER", x, like(ctx, x, alpha))
        return parts.select(ctx, above, x, like(ctx, x, 0.0))

    apply(ctx, node, function)


@lowers("Shrink")
def shrink(ctx: Context, node: ir.Node) -> None:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    bias, lambd = attr_float(node, "bias", 0.0), attr_float(node, "lambd", 0.5)

    def function(ctx: Context, x: Tensor) -> Tensor:
        below = parts.compare(ctx, "LESS", x, like(ctx, x, -lambd))
        above = parts.compare(ctx, "GREATER", x, like(ctx, x, lambd))
        high = parts.select(ctx, above, parts.minus(ctx, x, bias), like(ctx, x, 0.0))
        return parts.select(ctx, below, parts.plus(ctx, x, bias), high)

    apply(ctx, node, function)


@lowers("Softplus")
def softplus(ctx: Context, node: ir.Node) -> None:
    """log(exp(x) + 1)."""
    apply(ctx, node, _softplus)


@lowers("Mish")
def mish(ctx: Context, node: ir.Node) -> None:
    """x tanh(softplus(x))."""
    apply(ctx, node, lambda ctx, x: parts.times(ctx, x, ctx.unary("TANH", _softplus(ctx, x))))


@lowers("Softsign")
def softsign(ctx: Context, node: ir.Node) -> None:
    """x / (1 + |x|)."""
    apply(ctx, node, lambda ctx, x: parts.over(ctx, x, parts.plus(ctx, ctx.unary("ABS", x), 1.0)))


@lowers("PRelu")
def prelu(ctx: Context, node: ir.Node) -> None:
    """x, or slope x below zero."""
    (x, slope), perm = ctx.align([given(node, 0), given(node, 1)])
    if x.dtype is D.FLOAT and slope.is_constant and x.rank == 4 and set(slope.shape[:-1]) <= {1}:
        # One slope for each channel, channels last: the kernel.
        made = ctx.emit("PRELU", [x, ctx.reshape(slope, (1, 1, slope.shape[-1]))], x.spec())
        return ctx.set(node.outputs[0], made, perm)
    wide, factor = widened(ctx, x, NUMBERS), widened(ctx, slope, NUMBERS)
    negative = parts.compare(ctx, "LESS", wide, like(ctx, wide, 0))
    result = parts.select(ctx, negative, parts.times(ctx, wide, factor), wide)
    return ctx.set(node.outputs[0], ctx.cast(result, x.dtype), perm)


@lowers("Clip", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def clip(ctx: Context, node: ir.Node) -> None:
    """min(max(x, low), high)."""
    tensor, perm = ctx.any_layout(given(node, 0))
    low, high = _bound(ctx, node, 1, -math.inf), _bound(ctx, node, 2, math.inf)
    op = None if low is None or high is None else _BOUNDS.get((low, high))
    if op is not None and (tensor.quant is not None or tensor.dtype is D.FLOAT):
        return ctx.set(node.outputs[0], ctx.emit(op, [tensor], ctx.output(node, perm)), perm)
    if tensor.quant is not None:
        if low is None or high is None:
            raise parts.refuse(node, "a quantized Clip to computed bounds", "requires_constant_input")
        return ctx.set(node.outputs[0], _integer_clip(ctx, tensor, low, high), perm)
    wide = widened(ctx, tensor, NUMBERS | {D.INT8, D.UINT8, D.INT16})
    limits = _limit(ctx, node, 1, wide), _limit(ctx, node, 2, wide)
    return ctx.set(node.outputs[0], ctx.cast(_clipped(ctx, wide, *limits), tensor.dtype), perm)


def _integer_clip(ctx: Context, tensor: Tensor, low: float, high: float) -> Tensor:
    """Rounding to the grid keeps the order: to cut before or after it is the same."""
    for op, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if math.isfinite(bound):
            tensor = ctx.emit(op, [parts.on_grid(ctx, tensor, bound), tensor], tensor.spec())
    return tensor


def _bound(ctx: Context, node: ir.Node, index: int, default: float) -> float | None:
    value = optional(node, index)
    if value is None:
        return default
    array = ctx.constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _limit(ctx: Context, node: ir.Node, index: int, x: Tensor) -> Tensor | None:
    value = optional(node, index)
    return None if value is None else ctx.cast(parts.scalar(ctx, ctx.tensor(value)), x.dtype)


def _clipped(ctx: Context, x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """The bounds stand first: MAXIMUM and MINIMUM give a NaN that is the second operand back."""
    x = x if low is None else ctx.binary("MAXIMUM", low, x)
    return x if high is None else ctx.binary("MINIMUM", high, x)


def _elu(ctx: Context, x: Tensor, alpha: float) -> Tensor:
    grown = ctx.unary("ELU", x)
    if alpha == 1.0:
        return grown
    negative = parts.compare(ctx, "LESS", x, like(ctx, x, 0.0))
    return parts.select(ctx, negative, parts.times(ctx, grown, alpha), x)


def _softplus(ctx: Context, x: Tensor) -> Tensor:
    """max(x, 0) + log1p(exp(-|x|)), which does not overflow."""
    small = ctx.unary("EXP", ctx.unary("NEG", ctx.unary("ABS", x)))
    return parts.plus(ctx, ctx.unary("RELU", x), log1p(ctx, small))
