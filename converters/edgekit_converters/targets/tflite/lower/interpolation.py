"""How ONNX's Resize samples one axis, as numbers: source indices, or a matrix of weights.

Specification: onnx/docs/Operators.md, Resize; where it leaves rounding open, onnxruntime's float32
arithmetic is followed. No graph here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis that is resized. `scale` is output over input as the node states it."""

    size: int
    out: int
    scale: float
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def trivial(self) -> bool:
        """Nothing is done along this axis."""
        return self.size == self.out and self.scale == 1.0 and self.coordinates != "tf_crop_and_resize"


def positions(axis: Axis) -> Array:
    """Where in the input each output element lies, in float32."""
    x = np.arange(axis.out, dtype=np.float32)
    scale = np.float32(axis.scale)
    half = np.float32(0.5)
    match axis.coordinates:
        case "asymmetric":
            found = x / scale
        case "align_corners":
            found = x * np.float32((axis.size - 1) / (axis.out - 1)) if axis.out > 1 else x * 0
        case "pytorch_half_pixel":
            found = (x + half) / scale - half if axis.out > 1 else x * 0
        case "half_pixel_symmetric":
            ratio = axis.out / (float(scale) * axis.size)
            found = np.float32(axis.size / 2 * (1 - ratio)) + (x + half) / scale - half
        case "tf_crop_and_resize":
            found = _cropped(axis, x)
        case _:
            found = (x + half) / scale - half
    return found.astype(np.float32)


def _cropped(axis: Axis, x: Array) -> Array:
    start, end = axis.roi
    if axis.out > 1:
        return start * (axis.size - 1) + x * ((end - start) * (axis.size - 1) / (axis.out - 1))
    return x * 0 + 0.5 * (start + end) * (axis.size - 1)


def outside(axis: Axis) -> Array:
    """Which outputs lie outside the input and get the extrapolation value."""
    if axis.coordinates != "tf_crop_and_resize":
        return np.zeros(axis.out, bool)
    where = positions(axis)
    return (where < 0) | (where > axis.size - 1)


def indices(axis: Axis) -> Array:
    """The input index that each output takes (``nearest``)."""
    where = positions(axis)
    match axis.nearest:
        case "floor":
            found = np.floor(where)
        case "ceil":
            found = np.ceil(where)
        case "round_prefer_ceil":
            found = np.floor(where + np.float32(0.5))
        case _:
            found = np.ceil(where - np.float32(0.5))
    return np.clip(found, 0, axis.size - 1).astype(np.int32)


def matrix(axis: Axis, *, cubic: bool) -> Array:
    """The weights (out, size) of a linear or cubic resize along this axis."""
    where = positions(axis).astype(np.float64)
    if not cubic and not axis.antialias:
        where = np.clip(where, 0, axis.size - 1)
    shrink = min(axis.scale, 1.0) if axis.antialias else 1.0
    reach = (2 if cubic else 1) / shrink
    first = np.floor(where).astype(np.int64) - int(np.ceil(reach)) + 1
    taps = first[:, None] + np.arange(2 * int(np.ceil(reach)))
    distance = np.abs(taps - where[:, None]) * shrink
    weights = _cubic(distance, axis.cubic_a) if cubic else np.clip(1 - distance, 0, None)
    if axis.exclude_outside:
        weights = np.where((taps < 0) | (taps >= axis.size), 0, weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    result = np.zeros((axis.out, axis.size))
    rows = np.broadcast_to(np.arange(axis.out)[:, None], taps.shape)
    np.add.at(result, (rows, np.clip(taps, 0, axis.size - 1)), weights)
    result[outside(axis)] = 0
    return result.astype(np.float32)


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def tflite_positions(size: int, out: int, *, align: bool, half: bool) -> Array:
    """Where TFLite's RESIZE ops sample, in their float32 arithmetic."""
    x = np.arange(out, dtype=np.float32)
    aligned = align and out > 1
    scale = np.float32(size - 1) / np.float32(out - 1) if aligned else np.float32(size) / np.float32(out)
    offset = np.float32(0.5 if half else 0.0)
    return (x + offset) * scale


def tflite_indices(size: int, out: int, *, align: bool, half: bool) -> Array:
    """The indices that RESIZE_NEAREST_NEIGHBOR takes."""
    where = tflite_positions(size, out, align=align, half=half)
    found = np.floor(where + np.float32(0.5)) if align else np.floor(where)
    return np.clip(found, 0, size - 1).astype(np.int32)


def tflite_matrix(size: int, out: int, *, align: bool, half: bool) -> Array:
    """The weights of RESIZE_BILINEAR along one axis."""
    where = tflite_positions(size, out, align=align, half=half) - np.float32(0.5 if half else 0.0)
    low = np.clip(np.floor(where), 0, size - 1).astype(np.int64)
    high = np.clip(np.ceil(where), 0, size - 1).astype(np.int64)
    part = where - low
    result = np.zeros((out, size))
    rows = np.arange(out)
    np.add.at(result, (rows, low), 1 - part)
    np.add.at(result, (rows, high), part)
    return result.astype(np.float32)
