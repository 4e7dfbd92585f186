"""The fixed-point arithmetic of the generated C, in Python's integers: for constants and for tables.

What a function of one 8-bit number gives is computed here once for all 256 of them, exactly as TFLite
Micro's reference kernels do (double rounding), so that the C has a table and no such code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

INT32_MAX = (1 << 31) - 1
INT32_MIN = -(1 << 31)
_EIGHTH, _THIRD = 1895147668, 715827883
_EXPONENTS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-1/8) and 1/3; exp of -1/4, -1/2, -1, -2, -4, -8, -16: all in Q0.31."""


def multiplier_of(real: float) -> tuple[int, int]:
    """A positive real number as (multiplier, shift): multiplier * 2^(shift - 31)."""
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    whole = math.floor(fraction * (1 << 31) + 0.5)
    if whole == 1 << 31:
        whole, shift = whole // 2, shift + 1
    return (0, 0) if shift < -31 else (whole, shift)


def high_mul(a: int, b: int) -> int:
    """a * b * 2 / 2^32, rounded half away from zero."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    return nudged >> 31 if nudged >= 0 else -(-nudged >> 31)


def round_shift(x: int, bits: int) -> int:
    """x / 2^bits, rounded half away from zero."""
    mask = (1 << bits) - 1
    return (x >> bits) + int((x & mask) > (mask >> 1) + int(x < 0))


def scaled(x: int, multiplier: int, shift: int) -> int:
    """x times the real number that `multiplier_of` took apart."""
    return round_shift(high_mul(x << max(shift, 0), multiplier), max(-shift, 0))


def clamped(x: int, low: int = -128, high: int = 127) -> int:
    """x within [low, high]."""
    return min(max(x, low), high)


def radius(bits: int, shift: int) -> int:
    """The largest difference that a Q`bits` number holds after a shift to the left by `shift`."""
    return math.floor(((1 << bits) - 1) * (1 << (31 - bits)) / 2.0**shift)


def exponential(x: int, bits: int) -> int:
    """exp(x) in Q0.31 for x <= 0 in Q`bits`: a polynomial around -1/8, then one product per set bit."""
    if x == 0:
        return INT32_MAX
    fraction = 31 - bits
    quarter = 1 << (fraction - 2)
    inner = (x & (quarter - 1)) - quarter
    result = _near(_saturating_left(inner, bits))
    rest = inner - x
    for place, factor in enumerate(_EXPONENTS):
        if bits > place - 2 and rest & (1 << (fraction + place - 2)):
            result = high_mul(result, factor)
    return result


def _near(x: int) -> int:
    """exp(x) for x in [-1/4, 0) in Q0.31."""
    x += 1 << 28
    square = high_mul(x, x)
    cube, fourth = high_mul(square, x), high_mul(square, square)
    tail = round_shift(high_mul(round_shift(fourth, 2) + cube, _THIRD) + square, 1)
    return _EIGHTH + high_mul(_EIGHTH, x + tail)


def _saturating_left(x: int, bits: int) -> int:
    limit = (1 << (31 - bits)) - 1
    if x > limit:
        return INT32_MAX
    return INT32_MIN if x < -limit else x << bits


def _newton(half: int) -> int:
    """1 / half in Q2.29 for half in [1/2, 1) in Q0.31."""
    guess = 1515870810 + high_mul(half, -1010580540)
    for _ in range(3):
        error = (1 << 29) - high_mul(half, guess)
        guess += _saturating_left(high_mul(guess, error), 2)
    return guess


def _half_of_one_plus(x: int) -> int:
    return (x + INT32_MAX + 1) // 2


def logistic(x: int) -> int:
    """1 / (1 + exp(-x)) in Q0.31 for x in Q4.27."""
    if x == 0:
        return 1 << 30
    above = _saturating_left(_newton(_half_of_one_plus(exponential(-abs(x), 4))), 1)
    return above if x > 0 else INT32_MAX - above


def hyperbolic_tangent(x: int) -> int:
    """tanh(x) in Q0.31 for x in Q4.27."""
    if x == 0:
        return 0
    # exp(-2|x|): doubling a Q4 number exactly makes it a Q5 one with the same bits.
    below = _newton(_half_of_one_plus(exponential(-abs(x), 5)))
    size = _saturating_left(below - (1 << 29), 2)
    return size if x > 0 else -size


def softmax_exponents(scale: float, beta: float) -> list[int]:
    """exp of 0 to -255 steps of `scale`, in Q0.31; 0 where the reference adds nothing."""
    multiplier, shift = multiplier_of(min(beta * scale * (1 << 26), (1 << 31) - 1.0))
    reach = radius(5, shift)
    return [
        exponential(high_mul(-(step << shift), multiplier), 5) if step <= reach else 0 for step in range(256)
    ]


def sigmoid_table(scale: float, zero: int, function: Callable[[int], int], bits: int, low: int) -> list[int]:
    """A saturating function for -128 to 127: `bits` fractional bits in the result, `low` is added."""
    multiplier, shift = multiplier_of(scale * (1 << 27))
    reach = radius(4, shift)
    values = []
    for number in range(-128, 128):
        x = number - zero
        if abs(x) >= reach:
            values.append(127 if x > 0 else -128)
            continue
        values.append(clamped(round_shift(function(scaled(x, multiplier, shift)), 31 - bits) + low))
    return values


def hard_swish_table(scale: tuple[float, float], zero: tuple[int, int]) -> list[int]:
    """x * relu6(x + 3) / 6 for -128 to 127, in 16-bit fixed point; `scale` (their quotients are taken in
    float32) and `zero` are those of input and output."""
    fine, three = np.float32(1 / 128) * np.float32(scale[0]), np.float32(3) / np.float32(32768)
    factor, shift = _short(*multiplier_of(float(fine / np.float32(scale[1]))))
    bound, left = _short(*multiplier_of(float(fine / three)))
    values = []
    for number in range(-128, 128):
        x = (number - zero[0]) << 7
        share = _sixteen(x << (left - 1)) if left > 0 else x
        share = _rounded_short(share, bound)
        share = _sixteen(share << 1) if left > 0 else round_shift(share, -left)
        share = (share + (1 << 15)) >> 1
        product = share * _rounded_short(x, factor)
        result = product >> 15 if product >= 0 else -(-product >> 15)
        values.append(clamped(round_shift(result, -shift) + zero[1]))
    return values


def _short(multiplier: int, shift: int) -> tuple[int, int]:
    """The multiplier in 16 bits."""
    return (min((multiplier + (1 << 15)) >> 16, (1 << 15) - 1), shift)


def _sixteen(x: int) -> int:
    return clamped(x, -(1 << 15), (1 << 15) - 1)


def _rounded_short(a: int, b: int) -> int:
    """a * b * 2 / 2^16, rounded half away from zero."""
    product = a * b
    nudged = product + ((1 << 14) if product >= 0 else 1 - (1 << 14))
    return nudged >> 15 if nudged >= 0 else -(-nudged >> 15)
