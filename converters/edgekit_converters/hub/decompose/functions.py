"""Elementary functions a runtime may lack: hyperbolic, inverse trigonometric, erf.

Ranges are reduced with Where, Min and Max; what is left is a polynomial in a variable between −1 and 1,
interpolated here at Chebyshev points. Error: a few units in the last place of float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.polynomial import chebyshev

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import required

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_LN2 = math.log(2.0)
_HUGE = 1e9


def in_float32(
    kind: str,
) -> Callable[[Callable[[Builder, ir.Value], ir.Value]], Callable[[Builder, ir.Value], ir.Value]]:
    """Register a function of one value for nodes of `kind`; half precision is computed in float32."""

    def register(
        function: Callable[[Builder, ir.Value], ir.Value],
    ) -> Callable[[Builder, ir.Value], ir.Value]:
        @rule(kind)
        def apply(node: ir.Node, b: Builder) -> Result:
            x = required(node, 0)
            wide = b.cast(x, ir.DataType.FLOAT) if x.dtype in _HALVES else x
            return b.cast(function(b, wide), x.dtype)

        return function

    return register


@in_float32("Sinh")
def sinh(b: Builder, x: ir.Value) -> ir.Value:
    """(eˣ − e⁻ˣ)/2; below 1 from t = tanh(x/2) as 2t/(1 − t²), which does not cancel."""
    half = b("Mul", x, 0.5)
    # e^(x/2) twice, so that it overflows only where sinh does.
    grown = b("Mul", b("Mul", b("Exp", half), 0.5), b("Exp", half))
    fallen = b("Mul", b("Exp", b("Neg", x)), 0.5)
    shrunk = b("Mul", b("Mul", b("Exp", b("Neg", half)), 0.5), b("Exp", b("Neg", half)))
    far = b("Where", b("Less", x, 0.0), b("Sub", b("Mul", b("Exp", x), 0.5), shrunk), b("Sub", grown, fallen))
    t = b("Tanh", half)
    near = b("Div", b("Mul", t, 2.0), b("Sub", 1.0, b("Mul", t, t)))
    return b("Where", b("Less", b("Abs", x), 1.0), near, far)


@in_float32("Cosh")
def cosh(b: Builder, x: ir.Value) -> ir.Value:
    """(eᵃ + e⁻ᵃ)/2 for a = |x|."""
    half = b("Mul", b("Abs", x), 0.5)
    grown = b("Mul", b("Mul", b("Exp", half), 0.5), b("Exp", half))
    return b("Add", grown, b("Mul", b("Exp", b("Neg", b("Abs", x))), 0.5))


@in_float32("Tan")
def tan(b: Builder, x: ir.Value) -> ir.Value:
    """sin/cos."""
    return b("Div", b("Sin", x), b("Cos", x))


@in_float32("Atan")
def atan(b: Builder, x: ir.Value) -> ir.Value:
    """Of min(a, 1)/max(a, 1), and of its complement for a = |x| above 1."""
    a = b("Abs", x)
    inner = _atan_unit(b, b("Div", b("Min", a, 1.0), b("Max", a, 1.0)))
    found = b("Where", b("Greater", a, 1.0), b("Sub", math.pi / 2, inner), inner)
    return b("Mul", found, b("Sign", x))


@in_float32("Asin")
def asin(b: Builder, x: ir.Value) -> ir.Value:
    """The angle whose sine is a = |x| and whose cosine is √((1−a)(1+a))."""
    return b("Mul", _asin_positive(b, b("Abs", x)), b("Sign", x))


@in_float32("Acos")
def acos(b: Builder, x: ir.Value) -> ir.Value:
    """2·asin(√((1−x)/2)), which keeps its digits near 1."""
    return b("Mul", _asin_positive(b, b("Sqrt", b("Mul", b("Sub", 1.0, x), 0.5))), 2.0)


@in_float32("Asinh")
def asinh(b: Builder, x: ir.Value) -> ir.Value:
    """log1p(a + a²/(1 + √(a² + 1))) for a = |x|; log(2a) where a² has no room."""
    a = b("Abs", x)
    low = b("Min", a, _HUGE)
    square = b("Mul", low, low)
    near = _log1p(b, b("Add", low, b("Div", square, b("Add", b("Sqrt", b("Add", square, 1.0)), 1.0))))
    found = b("Where", b("Greater", a, _HUGE), b("Add", b("Log", a), _LN2), near)
    return b("Mul", found, b("Sign", x))


@in_float32("Acosh")
def acosh(b: Builder, x: ir.Value) -> ir.Value:
    """log1p(t + √(2t + t²)) for t = x − 1; log(2x) where t² has no room."""
    t = b("Sub", b("Min", x, _HUGE), 1.0)
    near = _log1p(b, b("Add", t, b("Sqrt", b("Mul", t, b("Add", t, 2.0)))))
    return b("Where", b("Greater", x, _HUGE), b("Add", b("Log", x), _LN2), near)


@in_float32("Atanh")
def atanh(b: Builder, x: ir.Value) -> ir.Value:
    """log1p(2a/(1 − a))/2 for a = |x|."""
    a = b("Abs", x)
    grown = _log1p(b, b("Div", b("Mul", a, 2.0), b("Sub", 1.0, a)))
    return b("Mul", b("Mul", grown, 0.5), b("Sign", x))


@in_float32("Erf")
def erf(b: Builder, x: ir.Value) -> ir.Value:
    """Below 1 x·p(x²); above, 1 − exp(−a²)·q(1/(1 + a/2)), which is 1 from 4 on."""
    a = b("Min", b("Abs", x), 4.0)
    low = b("Min", a, 1.0)
    near = b("Mul", low, _polynomial(b, b("Mul", low, low), _erf_near(), 0.0, 1.0))
    t = b("Div", 1.0, b("Add", b("Mul", a, 0.5), 1.0))
    tail = b("Mul", b("Exp", b("Neg", b("Mul", a, a))), _polynomial(b, t, _erf_far(), 1 / 3, 2 / 3))
    found = b("Where", b("Greater", a, 1.0), b("Sub", 1.0, tail), near)
    return b("Mul", found, b("Sign", x))


def _log1p(b: Builder, u: ir.Value) -> ir.Value:
    """log(1 + u) for u ≥ 0: below 1, what rounding 1 + u lost is put back as a factor."""
    whole = b("Add", u, 1.0)
    log = b("Log", whole)
    back = b("Sub", whole, 1.0)
    lost = b("Equal", back, b.scalar(0, u))
    safe = b("Where", lost, b.scalar(1, u), back)
    small = b("Where", lost, u, b("Mul", log, b("Div", b("Min", u, 1.0), safe)))
    return b("Where", b("Less", u, 1.0), small, log)


def _asin_positive(b: Builder, a: ir.Value) -> ir.Value:
    other = b("Sqrt", b("Mul", b("Sub", 1.0, a), b("Add", a, 1.0)))
    inner = _atan_unit(b, b("Div", b("Min", a, other), b("Max", a, other)))
    return b("Where", b("Greater", a, other), b("Sub", math.pi / 2, inner), inner)


def _atan_unit(b: Builder, y: ir.Value) -> ir.Value:
    """The arc tangent between 0 and 1."""
    return b("Mul", y, _polynomial(b, b("Mul", y, y), _atan_over_x(), 0.0, 1.0))


def _polynomial(
    b: Builder, x: ir.Value, coefficients: tuple[float, ...], low: float, high: float
) -> ir.Value:
    """Horner's rule in the variable that runs from −1 to 1 while `x` runs from `low` to `high`."""
    scaled = b("Sub", b("Mul", x, 2 / (high - low)), (high + low) / (high - low))
    found = b("Add", b("Mul", scaled, coefficients[-1]), coefficients[-2])
    for coefficient in reversed(coefficients[:-2]):
        found = b("Add", b("Mul", found, scaled), coefficient)
    return found


def _fitted(function: Callable[[float], float], low: float, high: float, degree: int) -> tuple[float, ...]:
    """Monomial coefficients, lowest first, of the interpolation at Chebyshev points."""

    def scaled(points: Any) -> Any:
        return np.array([function((high - low) / 2 * float(p) + (high + low) / 2) for p in points])

    return tuple(float(c) for c in chebyshev.cheb2poly(chebyshev.chebinterpolate(scaled, degree)))


@functools.cache
def _atan_over_x() -> tuple[float, ...]:
    return _fitted(lambda u: math.atan(math.sqrt(u)) / math.sqrt(u), 0.0, 1.0, 10)


@functools.cache
def _erf_near() -> tuple[float, ...]:
    return _fitted(lambda u: math.erf(math.sqrt(u)) / math.sqrt(u), 0.0, 1.0, 7)


@functools.cache
def _erf_far() -> tuple[float, ...]:
    def tail(t: float) -> float:
        a = 2 * (1 / t - 1)
        return math.erfc(a) * math.exp(a * a)

    return _fitted(tail, 1 / 3, 2 / 3, 9)
