"""Grids: the evenly spaced values an integer type stands for, real = scale * (q - zero point).

Pure arithmetic on ranges and arrays; which tensor gets which grid is `assign`'s business. Bit rules:
the LiteRT 8-bit quantization specification and ONNX QuantizeLinear (round half to even, saturate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LIMITS = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
}
_SMALLEST = 1e-9
"""No scale is below this: products of two scales must stay normal float32 numbers."""
_BIAS_ROOM = 2**30
_IDLE_CHANNEL = 2**20


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One grid for a whole tensor. `scale` is exactly a float32."""

    type: str
    scale: float
    zero_point: int = 0

    @property
    def low(self) -> float:
        """The least value it can say."""
        return (LIMITS[self.type][0] - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest value it can say."""
        return (LIMITS[self.type][1] - self.zero_point) * self.scale


def activation_grid(
    low: float,
    high: float,
    kind: str,
    *,
    symmetric: bool = False,
    power_of_two: bool = False,
    unsigned: bool = False,
) -> Grid:
    """The grid of type `kind` for values within [low, high]; zero is always exactly on it.

    With `unsigned` a symmetric grid of values that are never negative is that of unsigned integers. It is
    written in signed ones whose zero point is the least: the same values, and one type in the whole graph.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric or power_of_two:
        least, most = LIMITS[kind]
        zero = least if unsigned and low == 0.0 else 0
        scale = max(-low, high) / (most - zero)
        if power_of_two:
            scale = float(powers_of_two(np.float64(max(scale, _SMALLEST))))
        return Grid(type=kind, scale=_float32(scale), zero_point=zero)
    least, most = LIMITS[kind]
    scale = _float32((high - low) / (most - least))
    zero = round(least - low / scale)
    return Grid(type=kind, scale=scale, zero_point=min(max(zero, least), most))


def powers_of_two(scales: Any) -> Any:
    """The powers of two that are not below `scales`."""
    whole = np.ceil(np.log2(np.asarray(scales, np.float64)))
    return np.exp2(whole).astype(np.asarray(scales).dtype)


def weight_scales(weight: Any, axis: int | None, kind: str = "int8", *, bits: int = 0) -> Any:
    """Symmetric scales (float32) of a weight, one per index of `axis`, or one for all (rank 0).

    `bits`: of an integer, where fewer are used than `kind` has.
    """
    most = largest(kind, bits)
    around = tuple(i for i in range(weight.ndim) if i != axis) if axis is not None else None
    peak = np.abs(weight).max(axis=around).astype(np.float64) if weight.size else np.float64(0)
    return np.maximum(peak / most, _SMALLEST).astype(np.float32)


def room_for_bias(scales: Any, bias: Any, input_scale: float) -> Any:
    """Weight scales made so large that bias / (input scale * weight scale) fits into 32 bits.

    A channel whose weights are all zero still has to say its bias: it gets a scale for that.
    """
    bias = np.abs(bias.astype(np.float64))
    least = bias / (input_scale * _BIAS_ROOM)
    idle = (scales <= np.float32(_SMALLEST)) & (bias > 0)
    wanted = np.where(idle, bias / (input_scale * _IDLE_CHANNEL), np.maximum(scales, least))
    return wanted.astype(np.float32) if scales.ndim else np.float32(wanted.max())


def largest(kind: str, bits: int = 0) -> int:
    """The largest integer of a symmetric weight."""
    return int(2 ** (bits - 1) - 1 if bits else LIMITS[kind][1])


def quantize(values: Any, scales: Any, kind: str, *, zero_point: int = 0, axis: int | None = None) -> Any:
    """Integers (as the numpy type nearest to `kind`) of `values`; symmetric weights leave out the least."""
    least, most = LIMITS[kind]
    if axis is not None and np.ndim(scales):
        scales = np.asarray(scales).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    work = _arithmetic(kind)
    # A single number too stays an array: numpy's functions give bare numbers for it.
    whole = np.asarray(np.rint(values.astype(work) / np.asarray(scales, work)))
    whole += zero_point
    return np.clip(whole, least, most, out=whole).astype(storage(kind))


def dequantize(whole: Any, scales: Any, *, zero_point: int = 0, axis: int | None = None) -> Any:
    """Float32 values of integers."""
    if axis is not None and np.ndim(scales):
        scales = np.asarray(scales).reshape([-1 if i == axis else 1 for i in range(whole.ndim)])
    work = _arithmetic(str(whole.dtype))
    return ((whole.astype(work) - zero_point) * np.asarray(scales, work)).astype(np.float32)


def _arithmetic(kind: str) -> Any:
    """A float type that holds every integer of `kind`: weights are many, so no wider than needed."""
    return np.float64 if kind == "int32" else np.float32


def storage(kind: str) -> Any:
    """The numpy dtype that holds `kind`; four-bit types are ml_dtypes'."""
    if kind in ("int4", "uint4"):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, kind))
    return np.dtype(kind)


def _float32(scale: float) -> float:
    return float(np.float32(max(scale, _SMALLEST)))
