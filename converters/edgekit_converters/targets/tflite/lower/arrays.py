"""Shapes and arrays: broadcasting, real values of integers, packing. No graph here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.targets.tflite.lower.tensors import Quant, Shape


def elements(shape: Shape) -> int:
    """Number of elements; a size known only at run time counts as one."""
    sizes = [1 if size is None else size for size in shape]
    return int(np.prod(sizes, dtype=np.int64))


def broadcast(*shapes: Shape) -> Shape:
    """The shape that numpy's rules give; an unknown size stays unknown unless another decides it."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(_widest(sizes) for sizes in zip(*padded, strict=True))


def dequantized(integers: np.ndarray, quant: Quant) -> np.ndarray:
    """The real values of `integers`, in float64."""
    shape = [1] * integers.ndim
    if quant.per_channel:
        shape[quant.axis] = len(quant.scale)
    zero = np.array(quant.zero_point, np.float64).reshape(shape)
    return (integers.astype(np.float64) - zero) * np.array(quant.scale, np.float64).reshape(shape)


def _widest(sizes: Sequence[int | None]) -> int | None:
    wide = [size for size in sizes if size not in (1, None)]
    if wide:
        return wide[0]
    return None if None in sizes else 1


def packed_int4(array: np.ndarray) -> np.ndarray:
    """Two values a byte, the first in the low half."""
    flat = array.astype(np.int8).reshape(-1)
    flat = np.append(flat, np.zeros(len(flat) % 2, np.int8)).view(np.uint8)
    return (flat[0::2] & 0x0F) | ((flat[1::2] & 0x0F) << 4)
