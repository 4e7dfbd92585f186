"""Activation functions in terms of Exp, Log, Tanh, Sigmoid, Erf, Max, Min, Where.

Specification: onnx/docs/Operators.md. Forms are chosen so that no intermediate overflows where the
function itself does not.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_float, attr_int, attr_str, required


def softplus_of(b: Builder, x: ir.Value) -> ir.Value:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(−|x|))."""
    return b("Add", b("Relu", x), b("Log", b("Add", b("Exp", b("Neg", b("Abs", x))), 1.0)))


def below_zero(b: Builder, x: ir.Value, alpha: float, divisor: float = 1.0) -> ir.Value:
    """α·(exp(min(x, 0)/d) − 1)."""
    low = b("Min", x, 0.0)
    grown = b("Exp", low if divisor == 1.0 else b("Div", low, divisor))
    return b("Mul", b("Sub", grown, 1.0), alpha)


@rule("Elu")
def elu(node: ir.Node, b: Builder) -> Result:
    """max(x, 0) + α·(exp(min(x, 0)) − 1), for any sign of α."""
    x = required(node, 0)
    return b("Add", b("Relu", x), below_zero(b, x, attr_float(node, "alpha", 1.0)))


@rule("Celu")
def celu(node: ir.Node, b: Builder) -> Result:
    """max(x, 0) + α·(exp(min(x, 0)/α) − 1), for α > 0; else as the specification has it."""
    x, alpha = required(node, 0), attr_float(node, "alpha", 1.0)
    if alpha <= 0:
        return None
    return b("Add", b("Relu", x), below_zero(b, x, alpha, alpha))


@rule("Selu")
def selu(node: ir.Node, b: Builder) -> Result:
    """γ · elu(x, α)."""
    x = required(node, 0)
    alpha = attr_float(node, "alpha", 1.67326319217681884765625)
    gamma = attr_float(node, "gamma", 1.05070102214813232421875)
    return b("Mul", b("Add", b("Relu", x), below_zero(b, x, alpha)), gamma)


@rule("Softplus")
def softplus(node: ir.Node, b: Builder) -> Result:
    """See `softplus_of`."""
    return softplus_of(b, required(node, 0))


@rule("Mish")
def mish(node: ir.Node, b: Builder) -> Result:
    """x · tanh(softplus(x))."""
    x = required(node, 0)
    return b("Mul", x, b("Tanh", softplus_of(b, x)))


@rule("Softsign")
def softsign(node: ir.Node, b: Builder) -> Result:
    """x / (1 + |x|)."""
    x = required(node, 0)
    return b("Div", x, b("Add", b("Abs", x), 1.0))


@rule("HardSigmoid")
def hard_sigmoid(node: ir.Node, b: Builder) -> Result:
    """max(0, min(1, α·x + β))."""
    x = required(node, 0)
    alpha, beta = attr_float(node, "alpha", 0.2), attr_float(node, "beta", 0.5)
    return b("Max", b("Min", b("Add", b("Mul", x, alpha), beta), 1.0), 0.0)


@rule("HardSwish")
def hard_swish(node: ir.Node, b: Builder) -> Result:
    """x · max(0, min(1, x/6 + 1/2))."""
    x = required(node, 0)
    return b("Mul", x, b("Max", b("Min", b("Add", b("Mul", x, 1 / 6), 0.5), 1.0), 0.0))


@rule("LeakyRelu")
def leaky_relu(node: ir.Node, b: Builder) -> Result:
    """max(x, 0) + α·min(x, 0)."""
    x = required(node, 0)
    return b("Add", b("Relu", x), b("Mul", b("Min", x, 0.0), attr_float(node, "alpha", 0.01)))


@rule("PRelu")
def prelu(node: ir.Node, b: Builder) -> Result:
    """max(x, 0) + slope·min(x, 0)."""
    x, slope = required(node, 0), required(node, 1)
    return b("Add", b("Max", x, 0), b("Mul", b("Min", x, 0), slope))


@rule("ThresholdedRelu")
def thresholded_relu(node: ir.Node, b: Builder) -> Result:
    """x above α, else 0."""
    x = required(node, 0)
    return b("Where", b("Greater", x, attr_float(node, "alpha", 1.0)), x, b.scalar(0, x))


@rule("Shrink")
def shrink(node: ir.Node, b: Builder) -> Result:
    """x + bias below −λ, x − bias above λ, else 0."""
    x, limit, bias = required(node, 0), attr_float(node, "lambd", 0.5), attr_float(node, "bias")
    if x.dtype is None or not x.dtype.is_floating_point():
        return None
    high = b("Where", b("Greater", x, limit), b("Sub", x, bias), b.scalar(0, x))
    return b("Where", b("Less", x, -limit), b("Add", x, bias), high)


@rule("Gelu")
def gelu(node: ir.Node, b: Builder) -> Result:
    """x/2 · (1 + erf(x/√2)), or its approximation by tanh."""
    x = required(node, 0)
    if attr_str(node, "approximate", "none") == "tanh":
        cubic = b("Add", x, b("Mul", b("Mul", b("Mul", x, x), x), 0.044715))
        inner = b("Tanh", b("Mul", cubic, math.sqrt(2 / math.pi)))
    else:
        inner = b("Erf", b("Mul", x, math.sqrt(0.5)))
    return b("Mul", b("Mul", x, 0.5), b("Add", inner, 1.0))


@rule("Softmax")
def softmax(node: ir.Node, b: Builder) -> Result:
    """exp(x − max) over its sum."""
    x, axis = required(node, 0), [attr_int(node, "axis", -1)]
    grown = b("Exp", b("Sub", x, b("ReduceMax", x, axis, keepdims=1)))
    return b("Div", grown, b("ReduceSum", grown, axis, keepdims=1))


@rule("LogSoftmax")
def log_softmax(node: ir.Node, b: Builder) -> Result:
    """x − max − log of the sum of exp(x − max)."""
    x, axis = required(node, 0), [attr_int(node, "axis", -1)]
    low = b("Sub", x, b("ReduceMax", x, axis, keepdims=1))
    return b("Sub", low, b("Log", b("ReduceSum", b("Exp", low), axis, keepdims=1)))


@rule("Hardmax")
def hardmax(node: ir.Node, b: Builder) -> Result:
    """1 at the first largest element, else 0."""
    x, axis = required(node, 0), attr_int(node, "axis", -1)
    if x.shape is None or not isinstance(x.shape[axis], int):
        return None
    count = b.size(x, axis)
    place = axis % len(x.shape)
    steps = b.reshape(b("Range", b.const_int(0), b("Squeeze", count, [0]), b.const_int(1)), *_only(place, x))
    first = b("ArgMax", x, axis=axis, keepdims=1)
    return b.cast(b("Equal", steps, first), x.dtype)


def _only(place: int, x: ir.Value) -> list[int]:
    """A shape that is 1 everywhere but at `place`."""
    return [-1 if axis == place else 1 for axis in range(len(x.shape or ()))]
