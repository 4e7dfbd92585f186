"""Sampling of images at given coordinates: resample, affine."""

from __future__ import annotations

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import (
    Array,
    kernel,
    undefined,
    unsupported,
    wide,
)


def _pixels(points: Array, size: int, mode: str, aligned: bool) -> Array:
    """Coordinates as element positions: 0 is the middle of the first element."""
    if mode == "unnormalized":
        return points
    if mode == "normalized_minus_one_to_one":
        points = (points + 1) / 2
    elif mode != "normalized_zero_to_one":
        raise unsupported("resample", f"coordinates mode {mode!r}")
    return points * (size - 1) if aligned else points * size - 0.5


def _reflected(points: Array, low: float, high: float) -> Array:
    span = high - low
    if span <= 0:
        return np.zeros_like(points)
    away = np.mod(np.abs(points - low), 2 * span)
    return low + np.where(away > span, 2 * span - away, away)


def _folded(points: Array, size: int, mode: str) -> Array:
    """Positions outside of the image brought into it, by padding mode."""
    if mode == "border":
        return np.clip(points, 0, size - 1)
    if mode == "reflection":
        return _reflected(points, 0, size - 1)
    if mode == "symmetric":
        return np.clip(_reflected(points, -0.5, size - 0.5), 0, size - 1)
    if mode == "constant":
        return points
    raise unsupported("resample", f"padding mode {mode!r}")


def _at(image: Array, rows: Array, columns: Array, outside: float) -> Array:
    """Elements of (channels, h, w) at whole positions; `outside` beyond the edges."""
    height, width = image.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    r, c = np.clip(rows, 0, height - 1).astype(int), np.clip(columns, 0, width - 1).astype(int)
    return np.where(inside, image[:, r, c], np.float32(outside))


def _bilinear(image: Array, rows: Array, columns: Array, outside: float) -> Array:
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    y = np.zeros((image.shape[0], *rows.shape), np.float32)
    for i, a in ((0, 1 - down), (1, down)):
        for j, b in ((0, 1 - right), (1, right)):
            y += _at(image, top + i, left + j, outside) * (a * b)
    return y


@kernel("resample")
def _resample(
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Array,
    coordinates_mode: str,
    align_corners: Array,
) -> Array:
    """Coordinates are (x, y) pairs, that is column before row."""
    made = []
    for image, points in zip(x, wide(coordinates), strict=True):
        pair = []
        for axis, size in ((1, x.shape[-2]), (0, x.shape[-1])):
            place = _pixels(points[..., axis], size, coordinates_mode, bool(align_corners))
            pair.append(_folded(place, size, padding_mode))
        if sampling_mode == "bilinear":
            made.append(_bilinear(image, pair[0], pair[1], float(padding_value)))
        elif sampling_mode == "nearest":
            made.append(_at(image, np.rint(pair[0]), np.rint(pair[1]), float(padding_value)))
        else:
            raise unsupported("resample", f"sampling mode {sampling_mode!r}")
    return np.stack(made)


@kernel("affine")
def _affine(
    x: Array,
    transform_matrix: Array,
    output_height: Array,
    output_width: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Array,
    coordinates_mode: str,
    align_corners: Array,
) -> Array:
    """Output coordinates, in -1 to 1, times the matrix give where the input is sampled."""
    known = ("bilinear", "constant", "normalized_minus_one_to_one", True)
    if (sampling_mode, padding_mode, coordinates_mode, bool(align_corners)) != known:
        raise undefined("affine", "only bilinear, constant, normalized_minus_one_to_one and aligned corners")
    height, width = int(output_height), int(output_width)
    row, column = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    made = []
    for n, image in enumerate(x):
        a0, a1, a2, b0, b1, b2 = wide(transform_matrix[n if len(transform_matrix) > 1 else 0])
        columns = (a0 * column + a1 * row + a2 + 1) / 2 * (image.shape[-1] - 1)
        rows = (b0 * column + b1 * row + b2 + 1) / 2 * (image.shape[-2] - 1)
        made.append(_bilinear(image, rows, columns, float(padding_value)))
    return np.stack(made)
