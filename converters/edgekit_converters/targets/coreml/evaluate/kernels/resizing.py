"""Resizing of images by a grid on each axis: resize, upsample, crop_resize."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import (
    Array,
    kernel,
    undefined,
    unsupported,
    whole,
)


def grid(size: int, wanted: int, mode: str) -> Array:
    """Where the `wanted` samples of an axis of `size` elements lie, by sampling mode."""
    i = np.arange(wanted, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if wanted == 1:
            return np.array([(size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
        points = i * (size - 1) / (wanted - 1)
    elif mode == "DEFAULT":
        points = i * size / wanted
    elif mode == "OFFSET_CORNERS":
        points = (i + 0.5) * max(1, size - 1) / wanted
    elif mode == "UNALIGN_CORNERS":
        points = (i + 0.5) * size / wanted - 0.5
    else:
        raise unsupported("resize", f"sampling mode {mode!r}")
    return np.clip(points, 0, size - 1)


def linear(x: Array, axis: int, points: Array) -> Array:
    """Samples between neighbours along one axis."""
    left = np.floor(points).astype(np.int64)
    right = np.minimum(left + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    share = (points - left).astype(np.float32).reshape(shape)
    return np.asarray(np.take(x, left, axis=axis) * (1 - share) + np.take(x, right, axis=axis) * share)


def _nearest(x: Array, axis: int, points: Array) -> Array:
    if np.any(np.abs(points - np.floor(points) - 0.5) < 1e-6):
        raise undefined("resize", "a sample exactly between two elements has no nearest one")
    return np.take(x, np.rint(points).astype(np.int64), axis=axis)


@kernel("resize_bilinear")
def _resize_bilinear(
    x: Array, target_size_height: Array, target_size_width: Array, sampling_mode: str
) -> Array:
    x = linear(x, x.ndim - 2, grid(x.shape[-2], int(target_size_height), sampling_mode))
    return linear(x, x.ndim - 1, grid(x.shape[-1], int(target_size_width), sampling_mode))


@kernel("resize")
def _resize(
    x: Array, shape: Array, resized_dims: Array, interpolation_mode: str, sampling_mode: str
) -> Array:
    """The last `resized_dims` axes; a 0 in `shape` keeps an axis."""
    count = int(resized_dims)
    for place, wanted in enumerate(whole(shape)[len(whole(shape)) - count :]):
        axis = x.ndim - count + place
        if wanted in (0, x.shape[axis]):
            continue
        points = grid(x.shape[axis], wanted, sampling_mode)
        x = linear(x, axis, points) if interpolation_mode == "LINEAR" else _nearest(x, axis, points)
    return x


@kernel("resize_nearest_neighbor", moves=True)
def _resize_nearest(x: Array, target_size_height: Array, target_size_width: Array) -> Array:
    """The definition names no sampling mode, so only whole factors have one meaning."""
    for axis, wanted in ((x.ndim - 2, int(target_size_height)), (x.ndim - 1, int(target_size_width))):
        if wanted % x.shape[axis]:
            raise undefined("resize_nearest_neighbor", f"{x.shape[axis]} elements to {wanted}")
        x = np.repeat(x, wanted // x.shape[axis], axis=axis)
    return x


@kernel("upsample_nearest_neighbor", moves=True)
def _upsample_nearest(x: Array, scale_factor_height: Array, scale_factor_width: Array) -> Array:
    for axis, scale in ((x.ndim - 2, scale_factor_height), (x.ndim - 1, scale_factor_width)):
        size = x.shape[axis]
        wanted = int(np.floor(size * float(scale)))
        x = np.take(x, np.floor(np.arange(wanted) * size / wanted).astype(np.int64), axis=axis)
    return x


@kernel("upsample_bilinear")
def _upsample_bilinear(
    x: Array,
    scale_factor_height: Array,
    scale_factor_width: Array,
    align_corners: Array,
    half_pixel_centers: Array | None = None,
) -> Array:
    aligned = bool(align_corners)
    centred = not aligned if half_pixel_centers is None else bool(half_pixel_centers)
    if aligned and centred:
        raise undefined("upsample_bilinear", "aligned corners with half-pixel centres")
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS" if centred else "DEFAULT"
    for axis, scale in ((x.ndim - 2, scale_factor_height), (x.ndim - 1, scale_factor_width)):
        wanted = int(np.floor(x.shape[axis] * float(scale)))
        x = linear(x, axis, grid(x.shape[axis], wanted, mode))
    return x


@kernel("crop_resize")
def _crop_resize(
    x: Array,
    target_height: Array,
    target_width: Array,
    normalized_coordinates: Array,
    spatial_scale: Array,
    box_coordinate_mode: str,
    sampling_mode: str,
    roi: Array | None = None,
    boxes: Array | None = None,
    box_indices: Array | None = None,
    pad_value: Array | float = 0.0,
) -> Array:
    """Boxes of all images (iOS 15, `roi` of four), or of one each (`roi` of five, iOS 17 `boxes`)."""
    cutter = _Cutter(
        x, (int(target_height), int(target_width)), normalized_coordinates, spatial_scale, sampling_mode
    )
    if boxes is not None:
        images = range(len(boxes)) if box_indices is None else whole(box_indices)
        pairs = zip(images, boxes, strict=True)
        return np.stack([cutter.cut(i, _corners(b, box_coordinate_mode), pad_value) for i, b in pairs])
    if roi is None:
        raise unsupported("crop_resize", "neither roi nor boxes")
    flat = roi.reshape(roi.shape[0], -1)
    made = []
    for row in flat:
        which = range(x.shape[0]) if row.size == 4 else [int(row[0])]
        corners = _corners(row[-4:], box_coordinate_mode)
        made.append(np.stack([cutter.cut(i, corners, pad_value) for i in which]))
    return np.stack(made)


def _corners(box: Array, mode: str) -> tuple[float, float, float, float]:
    """Top, left, bottom, right."""
    a, b, c, d = (float(item) for item in box)
    if mode == "CORNERS_HEIGHT_FIRST":
        return a, b, c, d
    if mode == "CORNERS_WIDTH_FIRST":
        return b, a, d, c
    if mode == "CENTER_SIZE_HEIGHT_FIRST":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if mode == "CENTER_SIZE_WIDTH_FIRST":
        return b - d / 2, a - c / 2, b + d / 2, a + c / 2
    raise unsupported("crop_resize", f"box coordinate mode {mode!r}")


class _Cutter:
    def __init__(
        self, x: Array, target: tuple[int, int], normalized: object, scale: object, mode: str
    ) -> None:
        if mode not in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
            # What the other grids are over a box that does not begin at an element is nowhere defined.
            raise unsupported("crop_resize", f"sampling mode {mode!r}")
        self._x, self._target, self._mode = x, target, mode
        height, width = x.shape[-2:]
        self._factors = (height - 1, width - 1) if bool(normalized) else (1, 1)
        self._scale = float(np.asarray(scale))

    def cut(self, image: int, corners: Sequence[float], outside: Array | float) -> Array:
        """One box of one image. Points outside of the image have the value `outside`."""
        top, left, bottom, right = (float(item) * self._scale for item in corners)
        rows = self._points(top * self._factors[0], bottom * self._factors[0], self._target[0])
        columns = self._points(left * self._factors[1], right * self._factors[1], self._target[1])
        found = self._x[image]
        inside = []
        for axis, points in ((1, rows), (2, columns)):
            last = found.shape[axis] - 1
            inside.append((points >= 0) & (points <= last))
            found = linear(found, axis, np.clip(points, 0, last))
        keep = inside[0][:, None] & inside[1][None, :]
        return np.where(keep, found, np.float32(outside))

    def _points(self, start: float, end: float, wanted: int) -> Array:
        if wanted == 1:
            return np.array([(start + end) / 2 if self._mode == "ALIGN_CORNERS" else start])
        return start + np.arange(wanted) * (end - start) / (wanted - 1)
