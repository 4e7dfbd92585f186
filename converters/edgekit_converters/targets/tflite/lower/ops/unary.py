"""Elementwise functions of one tensor: arithmetic, exponentials, trigonometry, rounding, Cast, tests.

Functions that LiteRT has no kernel for are written so that small arguments keep their digits (no
difference of nearly equal numbers).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import FLOATS, NUMBERS, D, bitcast, widened
from edgekit_converters.targets.tflite.lower.parts import given
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor

_KERNELS = {
    "Exp": "EXP",
    "Log": "LOG",
    "Sin": "SIN",
    "Cos": "COS",
    "Floor": "FLOOR",
    "Ceil": "CEIL",
    "Round": "ROUND",
}
Function = Callable[[Context, Tensor], Tensor]


def apply(ctx: Context, node: ir.Node, function: Function, kinds: frozenset[ir.DataType] = FLOATS) -> None:
    """Output 0 is `function` of input 0, elementwise, computed in a type of `kinds`."""
    tensor, perm = ctx.any_layout(given(node, 0))
    result = function(ctx, widened(ctx, tensor, kinds))
    ctx.set(node.outputs[0], ctx.cast(result, tensor.dtype), perm)


@lowers(*_KERNELS)
def kernel(ctx: Context, node: ir.Node) -> None:
    """One kernel (ROUND rounds half to even, as ONNX asks)."""
    apply(ctx, node, lambda ctx, x: ctx.unary(_KERNELS[node.op_type], x))


@lowers("Sqrt")
def sqrt(ctx: Context, node: ir.Node) -> None:
    """Square root; with its reciprocal, when nobody else reads the root, one kernel."""
    follower = _reciprocal_of(ctx, node)
    if follower is None:
        return apply(ctx, node, lambda ctx, x: ctx.unary("SQRT", x))
    ctx.done.add(follower)
    tensor, perm = ctx.any_layout(given(node, 0))
    return ctx.set(follower.outputs[0], ctx.unary("RSQRT", tensor), perm)


@lowers("Abs")
def abs_(ctx: Context, node: ir.Node) -> None:
    """Absolute value; of the smallest integer itself."""
    kind = ctx.dtype(given(node, 0))
    if kind in (D.UINT8, D.UINT16, D.UINT32, D.UINT64):
        ctx.alias(node.outputs[0], given(node, 0), tuple(range(ctx.rank(given(node, 0)))))
    elif kind is D.INT64:
        apply(ctx, node, _long_abs, NUMBERS)
    else:
        apply(ctx, node, lambda ctx, x: ctx.unary("ABS", x), frozenset({D.FLOAT, D.INT32}))


@lowers("Neg")
def neg(ctx: Context, node: ir.Node) -> None:
    """The opposite."""
    apply(ctx, node, lambda ctx, x: ctx.unary("NEG", x), NUMBERS)


@lowers("Sign")
def sign(ctx: Context, node: ir.Node) -> None:
    """-1, 0 or 1."""
    apply(ctx, node, _sign, NUMBERS | {D.DOUBLE})


@lowers("Reciprocal")
def reciprocal(ctx: Context, node: ir.Node) -> None:
    """1 / x."""
    apply(ctx, node, lambda ctx, x: parts.over(ctx, 1.0, x))


@lowers("Tan")
def tan(ctx: Context, node: ir.Node) -> None:
    """sin / cos."""
    apply(ctx, node, lambda ctx, x: parts.over(ctx, ctx.unary("SIN", x), ctx.unary("COS", x)))


@lowers("Asin")
def asin(ctx: Context, node: ir.Node) -> None:
    """atan2(x, sqrt((1 - x)(1 + x)))."""
    apply(ctx, node, lambda ctx, x: ctx.binary("ATAN2", x, _cosine_of_asin(ctx, x)))


@lowers("Acos")
def acos(ctx: Context, node: ir.Node) -> None:
    """atan2(sqrt((1 - x)(1 + x)), x)."""
    apply(ctx, node, lambda ctx, x: ctx.binary("ATAN2", _cosine_of_asin(ctx, x), x))


@lowers("Atan")
def atan(ctx: Context, node: ir.Node) -> None:
    """atan2(x, 1)."""
    apply(ctx, node, _atan)


@lowers("Sinh")
def sinh(ctx: Context, node: ir.Node) -> None:
    """tanh(x) cosh(x)."""
    apply(ctx, node, lambda ctx, x: parts.times(ctx, ctx.unary("TANH", x), _cosh(ctx, x)))


@lowers("Cosh")
def cosh(ctx: Context, node: ir.Node) -> None:
    """(exp(x) + exp(-x)) / 2, the half inside the exponential so that nothing overflows early."""
    apply(ctx, node, _cosh)


@lowers("Asinh")
def asinh(ctx: Context, node: ir.Node) -> None:
    """sign(x) log1p(a + a² / (1 + sqrt(a² + 1))) with a = |x|; log(2a) where a² would overflow."""
    apply(ctx, node, _asinh)


@lowers("Acosh")
def acosh(ctx: Context, node: ir.Node) -> None:
    """log1p(t + sqrt(t) sqrt(t + 2)) with t = x - 1."""
    apply(ctx, node, _acosh)


@lowers("Atanh")
def atanh(ctx: Context, node: ir.Node) -> None:
    """log1p(2 x / (1 - x)) / 2."""
    apply(ctx, node, _atanh)


@lowers("Erf")
def erf(ctx: Context, node: ir.Node) -> None:
    """The error function, to 2e-7."""
    apply(ctx, node, error_function)


@lowers("IsNaN")
def is_nan(ctx: Context, node: ir.Node) -> None:
    """Whether x differs from itself."""
    tensor, perm = ctx.any_layout(given(node, 0))
    x = ctx.cast(tensor, D.FLOAT)
    ctx.set(node.outputs[0], ctx.emit("NOT_EQUAL", [x, x], Spec(x.shape, D.BOOL)), perm)


@lowers("IsInf")
def is_inf(ctx: Context, node: ir.Node) -> None:
    """Whether x is infinite, in the directions asked for."""
    tensor, perm = ctx.any_layout(given(node, 0))
    x = widened(ctx, tensor, FLOATS)
    up, down = attr_int(node, "detect_positive", 1), attr_int(node, "detect_negative", 1)
    subject = ctx.unary("ABS", x) if up and down else x
    # Neither direction: no finite or infinite number equals NaN.
    wanted = math.inf if up else -math.inf if down else math.nan
    ctx.set(node.outputs[0], parts.compare(ctx, "EQUAL", subject, parts.like(ctx, x, wanted)), perm)


@lowers("Cast", "CastLike")
def cast(ctx: Context, node: ir.Node) -> None:
    """Another type. Integers wrap; a float beyond the integer's range is undefined in ONNX."""
    to = ir.DataType(attr_int(node, "to")) if node.op_type == "Cast" else ctx.dtype(given(node, 1))
    tensor, perm = ctx.any_layout(given(node, 0))
    if tensor.dtype is to:
        return ctx.alias(node.outputs[0], given(node, 0), tuple(range(tensor.rank)))
    if D.UINT64 in (tensor.dtype, to):
        return ctx.set(node.outputs[0], _unsigned_long(ctx, node, tensor, to), perm)
    return ctx.set(node.outputs[0], ctx.cast(tensor, to), perm)


@lowers("BitCast")
def bit_cast(ctx: Context, node: ir.Node) -> None:
    """The same bits as another type of the same size."""
    tensor, perm = ctx.any_layout(given(node, 0))
    ctx.set(node.outputs[0], bitcast(ctx, tensor, ir.DataType(attr_int(node, "to"))), perm)


def log1p(ctx: Context, y: Tensor) -> Tensor:
    """log(1 + y). Near zero 2 atanh(s) with s = y / (2 + y), by its series: LOG loses digits around 1."""
    half = parts.like(ctx, y, 0.5)
    near = ctx.binary("MAXIMUM", parts.like(ctx, y, -0.5), ctx.binary("MINIMUM", half, y))
    s = parts.over(ctx, near, parts.plus(ctx, near, 2.0))
    series = parts.polynomial(ctx, ctx.unary("SQUARE", s), [2 / (2 * n + 1) for n in range(8)][::-1])
    small = parts.compare(ctx, "LESS", ctx.unary("ABS", y), half)
    return parts.select(ctx, small, parts.times(ctx, s, series), ctx.unary("LOG", parts.plus(ctx, y, 1.0)))


def error_function(ctx: Context, x: Tensor) -> Tensor:
    """erf: Taylor's series below 1/2; above, from the GELU kernel, gelu(z) = z (1 + erf(z / sqrt 2)) / 2."""
    top, low = parts.like(ctx, x, 4.0), parts.like(ctx, x, -4.0)
    near = ctx.binary("MAXIMUM", low, ctx.binary("MINIMUM", top, x))
    square = ctx.unary("SQUARE", near)
    terms = [(-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(7)]
    series = parts.times(ctx, parts.polynomial(ctx, square, terms[::-1]), 2 / math.sqrt(math.pi))
    inner = parts.times(ctx, near, series)
    small = parts.compare(ctx, "LESS", square, parts.like(ctx, x, 0.25))
    z = parts.select(ctx, small, parts.like(ctx, x, 1.0), parts.times(ctx, near, math.sqrt(2)))
    outer = parts.minus(ctx, parts.over(ctx, parts.times(ctx, ctx.unary("GELU", z), 2.0), z), 1.0)
    return parts.select(ctx, small, inner, outer)


def _reciprocal_of(ctx: Context, node: ir.Node) -> ir.Node | None:
    """The node that alone reads `node`, where it is 1 / root in float32."""
    out = node.outputs[0]
    uses = tuple(out.uses())
    if len(uses) != 1 or out.is_graph_output() or ctx.dtype(given(node, 0)) is not D.FLOAT:
        return None
    reader = uses[0].node
    if reader.op_type == "Reciprocal":
        return reader
    if reader.op_type != "Div" or uses[0].idx != 1:
        return None
    one = ctx.constant(given(reader, 0))
    scalar = one is not None and one.size == 1 and one.ndim <= ctx.rank(out)
    return reader if scalar and one is not None and float(one.reshape(-1)[0]) == 1.0 else None


def _atan(ctx: Context, x: Tensor) -> Tensor:
    """ATAN2 does not broadcast."""
    ones = parts.expanded(ctx, ctx.const(np.ones((1,) * x.rank, np.float32)), x.shape, parts.sizes(ctx, x))
    return ctx.binary("ATAN2", x, ones)


def _long_abs(ctx: Context, x: Tensor) -> Tensor:
    negative = parts.compare(ctx, "LESS", x, parts.like(ctx, x, 0))
    return parts.select(ctx, negative, ctx.unary("NEG", x), x)


def _sign(ctx: Context, x: Tensor) -> Tensor:
    if x.dtype is not D.INT64:
        return ctx.unary("SIGN", x)
    zero = parts.like(ctx, x, 0)
    above, below = parts.compare(ctx, "GREATER", x, zero), parts.compare(ctx, "LESS", x, zero)
    return parts.minus(ctx, ctx.cast(above, D.INT64), ctx.cast(below, D.INT64))


def _cosine_of_asin(ctx: Context, x: Tensor) -> Tensor:
    product = parts.times(ctx, parts.minus(ctx, 1.0, x), parts.plus(ctx, x, 1.0))
    return ctx.unary("SQRT", product)


def _cosh(ctx: Context, x: Tensor) -> Tensor:
    half = ctx.unary("ABS", x)
    grown = ctx.unary("EXP", parts.minus(ctx, half, math.log(2)))
    return parts.plus(ctx, grown, parts.over(ctx, 0.25, grown))


def _asinh(ctx: Context, x: Tensor) -> Tensor:
    size = ctx.unary("ABS", x)
    limit = parts.like(ctx, x, 1e9)
    kept = ctx.binary("MINIMUM", limit, size)
    square = ctx.unary("SQUARE", kept)
    root = ctx.unary("SQRT", parts.plus(ctx, square, 1.0))
    near = log1p(ctx, parts.plus(ctx, kept, parts.over(ctx, square, parts.plus(ctx, root, 1.0))))
    far = parts.plus(ctx, ctx.unary("LOG", size), math.log(2))
    result = parts.select(ctx, parts.compare(ctx, "LESS", size, limit), near, far)
    negative = parts.compare(ctx, "LESS", x, parts.like(ctx, x, 0.0))
    return parts.select(ctx, negative, ctx.unary("NEG", result), result)


def _acosh(ctx: Context, x: Tensor) -> Tensor:
    t = parts.minus(ctx, x, 1.0)
    roots = parts.times(ctx, ctx.unary("SQRT", t), ctx.unary("SQRT", parts.plus(ctx, t, 2.0)))
    return log1p(ctx, parts.plus(ctx, t, roots))


def _atanh(ctx: Context, x: Tensor) -> Tensor:
    ratio = parts.over(ctx, parts.times(ctx, x, 2.0), parts.minus(ctx, 1.0, x))
    return parts.times(ctx, log1p(ctx, ratio), 0.5)


def _unsigned_long(ctx: Context, node: ir.Node, tensor: Tensor, to: ir.DataType) -> Tensor:
    """uint64 by way of int64, where every bit means the same."""
    other = to if tensor.dtype is D.UINT64 else tensor.dtype
    if not other.is_integer() and other is not D.BOOL:
        raise parts.refuse(node, "uint64 and floats: CAST has no kernel", "unsupported_type")
    if tensor.dtype is D.UINT64:
        return ctx.cast(bitcast(ctx, tensor, D.INT64), to)
    return bitcast(ctx, ctx.cast(tensor, D.INT64), to)
