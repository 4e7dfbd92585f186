"""Sampling between pixels: GridSample, AffineGrid, DeformConv, RoiAlign. Sizes must be known.

Pixels are read by Gather from the image with its places flattened and its channels last.
Specification: Operators.md (GridSample 20, AffineGrid 20, DeformConv 19, RoiAlign 16).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_int, attr_str, is_float, required, static_shape

_INT64 = int(ir.DataType.INT64)


class Image:
    """Images (N, C, *sizes) from which pixels are read at (N, P) places."""

    def __init__(self, b: Builder, x: ir.Value, sizes: tuple[int, ...]) -> None:
        self._b, (self.count, self.channels, *rest) = b, sizes
        self.sizes = tuple(rest)
        self.places = math.prod(rest)
        flat = b.reshape(x, self.count, self.channels, self.places)
        self._rows = b.reshape(b("Transpose", flat, perm=[0, 2, 1]), -1, self.channels)

    def read(self, taps: Sequence[ir.Value], images: ir.Value | None = None) -> ir.Value:
        """Pixels (N, P, C) at whole-numbered float coordinates inside the image, slowest axis first."""
        b = self._b
        found = taps[0]
        for size, tap in zip(self.sizes[1:], taps[1:], strict=True):
            found = b("Add", b("Mul", found, float(size)), tap)
        index = b("Cast", found, to=_INT64)
        if images is None:
            images = b.const(np.arange(self.count, dtype=np.int64).reshape(-1, 1))
        return b("Gather", self._rows, b("Add", index, b("Mul", images, self.places)), axis=0)


def _inside(b: Builder, tap: ir.Value, size: int) -> ir.Value:
    """1 where the coordinate is inside the image, else 0."""
    here = b("And", b("GreaterOrEqual", tap, 0.0), b("LessOrEqual", tap, float(size - 1)))
    return b.cast(here, tap.dtype)


def linear(b: Builder, image: Image, points: Sequence[ir.Value], images: ir.Value | None = None) -> ir.Value:
    """Linear interpolation at (N, P) points; outside of the image is 0."""
    lows = [b("Floor", point) for point in points]
    found: ir.Value | None = None
    for corner in itertools.product((0, 1), repeat=len(points)):
        weight: ir.Value | None = None
        taps = []
        for step, point, low, size in zip(corner, points, lows, image.sizes, strict=True):
            tap = b("Add", low, float(step))
            part = b("Mul", b("Sub", 1.0, b("Abs", b("Sub", point, tap))), _inside(b, tap, size))
            weight = part if weight is None else b("Mul", weight, part)
            taps.append(b("Clip", tap, 0.0, float(size - 1)))
        assert weight is not None
        term = b("Mul", image.read(taps, images), b("Unsqueeze", weight, [2]))
        found = term if found is None else b("Add", found, term)
    assert found is not None
    return found


@rule("GridSample")
def grid_sample(node: ir.Node, b: Builder) -> Result:
    """Weighted sums of the neighbours of each point."""
    x, grid = required(node, 0), required(node, 1)
    sizes, wanted = static_shape(x), static_shape(grid)
    if sizes is None or wanted is None or 0 in sizes or not is_float(x):
        return None
    image, depth = Image(b, x, sizes), len(sizes) - 2
    flat = b.reshape(b.cast(grid, x.dtype), wanted[0], -1, depth)
    aligned = attr_int(node, "align_corners") == 1
    points = []
    for axis, size in enumerate(image.sizes):
        # The grid names the fastest axis first.
        part = b("Squeeze", b.slice(flat, 2, depth - 1 - axis, depth - axis), [2])
        if aligned:
            points.append(b("Mul", b("Add", part, 1.0), (size - 1) / 2))
        else:
            points.append(b("Mul", b("Sub", b("Mul", b("Add", part, 1.0), float(size)), 1.0), 0.5))
    kind, border = attr_str(node, "mode", "linear"), attr_str(node, "padding_mode", "zeros")
    if kind == "nearest":
        points = [b("Round", point) for point in points]
    if kind != "cubic":
        points = [_moved(b, p, n, border, aligned) for p, n in zip(points, image.sizes, strict=True)]
    taps = [_taps(b, point, kind) for point in points]
    found: ir.Value | None = None
    for chosen in itertools.product(*taps):
        term = _term(b, image, chosen, border, aligned)
        found = term if found is None else b("Add", found, term)
    assert found is not None
    last = b("Transpose", found, perm=[0, 2, 1])
    return b.reshape(last, wanted[0], sizes[1], *wanted[1:-1])


def _taps(b: Builder, point: ir.Value, kind: str) -> list[tuple[ir.Value, ir.Value | None]]:
    """Neighbouring places and their weights along one axis."""
    if kind == "nearest":
        return [(point, None)]
    low = b("Floor", point)
    if kind == "cubic":
        steps = [b("Add", low, step) for step in (-1.0, 0.0, 1.0, 2.0)]
        return [(tap, _keys(b, b("Abs", b("Sub", point, tap)))) for tap in steps]
    high = b("Add", low, 1.0)
    return [(low, b("Sub", high, point)), (high, b("Sub", point, low))]


def _keys(b: Builder, d: ir.Value) -> ir.Value:
    """The cubic kernel with a = −3/4, for distances up to 2."""
    near = b("Add", b("Mul", b("Mul", b("Sub", b("Mul", d, 1.25), 2.25), d), d), 1.0)
    far = b("Sub", b("Mul", b("Add", b("Mul", b("Sub", b("Mul", d, -0.75), -3.75), d), -6.0), d), -3.0)
    return b("Where", b("Less", d, 1.0), near, far)


def _moved(b: Builder, point: ir.Value, size: int, border: str, aligned: bool) -> ir.Value:
    """A coordinate moved into the image as the border says; zeros leave it where it is."""
    if border == "border":
        return b("Clip", point, 0.0, float(size - 1))
    if border != "reflection":
        return point
    low, high = (0.0, size - 1.0) if aligned else (-0.5, size - 0.5)
    length = high - low
    if length == 0:
        return b("Mul", point, 0.0)
    shifted = b("Sub", point, low)
    turns = b("Mul", b("Floor", b("Div", shifted, 2 * length)), 2 * length)
    folded = b("Abs", b("Sub", b("Sub", shifted, turns), length))
    return b("Sub", low + length, folded)


def _term(
    b: Builder,
    image: Image,
    chosen: Sequence[tuple[ir.Value, ir.Value | None]],
    border: str,
    aligned: bool,
) -> ir.Value:
    """One neighbour times its weight."""
    weight: ir.Value | None = None
    taps = []
    for (tap, part), size in zip(chosen, image.sizes, strict=True):
        for item in (part, _inside(b, tap, size) if border == "zeros" else None):
            if item is None:
                continue
            weight = item if weight is None else b("Mul", weight, item)
        moved = _moved(b, tap, size, border, aligned)
        taps.append(b("Clip", moved, 0.0, float(size - 1)))
    pixels = image.read(taps)
    return pixels if weight is None else b("Mul", pixels, b("Unsqueeze", weight, [2]))


@rule("AffineGrid")
def affine_grid(node: ir.Node, b: Builder) -> Result:
    """The regular grid, a constant, times the matrices."""
    theta, sizes = required(node, 0), static_shape(node.outputs[0])
    if sizes is None:
        return None
    aligned = attr_int(node, "align_corners") == 1
    lines = [_line(size, aligned) for size in sizes[1:-1]]
    # The fastest axis comes first in a point, and a one for the offset last.
    points = np.stack([*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(sizes[1:-1])], -1)
    base = b.cast(b.const(points.reshape(-1, len(lines) + 1).astype(np.float32)), theta.dtype)
    made = b("MatMul", base, b("Transpose", theta, perm=[0, 2, 1]))
    return b.reshape(made, *sizes)


def _line(size: int, aligned: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if aligned:
        return np.linspace(-1.0, 1.0, size)
    return (2 * np.arange(size, dtype=np.float64) + 1) / size - 1
