"""Elementwise arithmetic, comparison, logic, rounding, casts and selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, add, kernel, undefined

_NAMES = {
    "fp32": np.float32,
    "fp16": np.float16,
    "int32": np.int32,
    "int16": np.int16,
    "uint16": np.uint16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint32": np.uint32,
    "bool": np.bool_,
}


def is_float(x: Array) -> bool:
    """Whether an array is of a float type."""
    return bool(np.issubdtype(x.dtype, np.floating))


def _unary(function: Callable[[Array], Any]) -> Callable[..., Any]:
    return lambda x: function(x)


def _binary(function: Callable[[Array, Array], Any]) -> Callable[..., Any]:
    return lambda x, y: function(x, y)


def half_even(x: Array) -> Array:
    """Round half to even, the default of IEEE 754."""
    return np.asarray(np.rint(x))


@lru_cache(maxsize=1)
def _erf_table() -> tuple[Array, Array, float]:
    step = 1 / 256
    grid = np.arange(0, 6 + 2 * step, step)
    return np.array([math.erf(item) for item in grid]), grid, step


def erf(x: Array) -> Array:
    """erf by cubic Hermite interpolation of a table of `math.erf`; off by less than 1e-11."""
    values, grid, step = _erf_table()
    at = np.minimum(np.abs(x.astype(np.float64)), 6.0)
    left = np.nan_to_num(at / step).astype(np.int64)
    t = at / step - left
    slope = 2 / math.sqrt(math.pi) * np.exp(-(grid**2)) * step
    rest = 1 - t
    low = values[left] * (1 + 2 * t) * rest**2 + slope[left] * t * rest**2
    high = values[left + 1] * t**2 * (3 - 2 * t) - slope[left + 1] * t**2 * rest
    return np.asarray(np.copysign(low + high, x).astype(x.dtype))


def _round(x: Array) -> Array:
    """The CPU rounds ties to even, the other compute units do not (crbug.com/439346653)."""
    if np.any(np.abs(x - np.trunc(x)) == 0.5):
        raise undefined("round", "a value in the middle of two whole numbers")
    return half_even(x)


def _real_div(x: Array, y: Array) -> Array:
    """Of whole numbers the whole part; which way that rounds below zero is said nowhere."""
    if is_float(x) or is_float(y):
        return np.asarray(x / y)
    if np.any(y == 0) or np.any(((x < 0) != (y < 0)) & (np.remainder(x, np.where(y == 0, 1, y)) != 0)):
        raise undefined("real_div", "a whole number by zero, or a quotient below zero that is not whole")
    return np.asarray(x // y)


def _whole_division(kind: str, function: Callable[[Array, Array], Any]) -> Callable[..., Any]:
    def divide(x: Array, y: Array) -> Array:
        if not is_float(y) and np.any(y == 0):
            raise undefined(kind, "a whole number divided by zero")
        return np.asarray(function(x, y))

    return divide


def _pow(x: Array, y: Array) -> Array:
    if is_float(x) or is_float(y):
        return np.asarray(np.power(x, y))
    if np.any(y < 0):
        raise undefined("pow", "a whole number to a negative power")
    return np.asarray(np.power(x, y))


def _erf_op(x: Array) -> Array:
    return erf(x)


def _inverse(x: Array, epsilon: Array) -> Array:
    return np.asarray(1 / (x + epsilon))


def _log(x: Array, epsilon: Array) -> Array:
    return np.asarray(np.log(x + epsilon))


def _rsqrt(x: Array, epsilon: Array) -> Array:
    return np.asarray(1 / np.sqrt(x + epsilon))


def _exp2(x: Array) -> Array:
    return np.asarray(np.exp2(x) if is_float(x) else np.left_shift(np.int32(1), x))


for _name, _function in {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp": np.exp,
    "floor": np.floor,
    "logical_not": np.logical_not,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}.items():
    add((_name,), _unary(_function))

for _name, _two in {
    "add": np.add,
    "equal": np.equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mul": np.multiply,
    "not_equal": np.not_equal,
    "sub": np.subtract,
}.items():
    add((_name,), _binary(_two))

add(("real_div",), _real_div)
add(("round",), _round)
add(("floor_div",), _whole_division("floor_div", np.floor_divide))
add(("mod",), _whole_division("mod", np.mod))
add(("pow",), _pow)
add(("erf",), _erf_op)
add(("inverse",), _inverse)
add(("log",), _log)
add(("rsqrt",), _rsqrt)
add(("exp2",), _exp2)


@kernel("clip")
def _clip(x: Array, alpha: Array, beta: Array) -> Array:
    return np.asarray(np.minimum(np.maximum(x, alpha), beta))


@kernel("threshold")
def _threshold(x: Array, alpha: Array) -> Array:
    return np.asarray(np.maximum(x, alpha))


@kernel("select", moves=True)
def _select(cond: Array, a: Array | None = None, b: Array | None = None) -> Array:
    if a is None or b is None:
        return np.argwhere(cond).astype(np.int32)
    return np.where(cond, a, b)


@kernel("cast")
def _cast(x: Array, dtype: str) -> Array:
    """Towards zero from float to whole numbers; what does not fit is undefined."""
    target: np.dtype[Any] = np.dtype(_NAMES[str(dtype)])
    if target == np.bool_ or np.issubdtype(target, np.floating):
        return x.astype(target)
    if x.dtype != np.bool_ and x.size:
        limits = np.iinfo(target)
        cut = np.trunc(x.astype(np.float64)) if is_float(x) else x
        if not np.all((cut >= limits.min) & (cut <= limits.max)):
            raise undefined("cast", f"a value outside {target.name}")
    return x.astype(target)
