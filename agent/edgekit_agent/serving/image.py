"""Picture steps of the contract's preprocessing in numpy: resize, centre crop, colour order.

Pictures are batches in NHWC, RGB or one channel. Resizing is bilinear with half-pixel centres and
without antialiasing, as TensorFlow's ``resize(..., "bilinear")`` and ONNX's ``half_pixel`` do it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def resize(pictures: Array, height: int, width: int) -> Array:
    """Bilinear; float32 unless the size is right already."""
    if pictures.shape[1:3] == (height, width):
        return pictures
    values = pictures.astype(np.float32)
    top, bottom, down = _taps(values.shape[1], height)
    left, right, along = _taps(values.shape[2], width)
    share = down[:, None, None]
    rows = values[:, top] * (1 - share) + values[:, bottom] * share
    share = along[:, None]
    return np.asarray(rows[:, :, left] * (1 - share) + rows[:, :, right] * share)


def _taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each new place the two old ones and the second one's share."""
    centre = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(centre).astype(np.intp)
    return first, np.minimum(first + 1, old - 1), (centre - first).astype(np.float32)


def crop_center(pictures: Array, height: int, width: int) -> Array:
    """The middle; pictures must be at least as large."""
    top, left = (pictures.shape[1] - height) // 2, (pictures.shape[2] - width) // 2
    return pictures[:, top : top + height, left : left + width]


def color_as(pictures: Array, color: str) -> Array:
    """RGB pictures as ``rgb``, ``bgr`` or ``gray`` (ITU-R BT.601 luma); one channel becomes three alike."""
    if color == "gray":
        if pictures.shape[-1] == 1:
            return pictures
        return np.asarray(pictures.astype(np.float32) @ _LUMA)[..., None]
    if pictures.shape[-1] == 1:
        return np.repeat(pictures, 3, axis=-1)
    return pictures[..., ::-1] if color == "bgr" else pictures


__all__ = ["color_as", "crop_center", "resize"]
