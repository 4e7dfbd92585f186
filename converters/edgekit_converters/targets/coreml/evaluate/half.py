"""Rounding to half precision without leaving float32: numpy's own conversion takes one element at a time.

A half has 10 bits of fraction where a float32 has 23 (IEEE 754-2019, table 3.5), so a normal one is rounded,
to the nearest and ties to even, by adding just under half of its last place to the bits and cutting them off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_CUT = 13
_LARGEST = 0x477FEFFF
"""Bits of the largest float32 that does not round to infinity, 65519.996."""
_NORMAL = 0x38800000
"""Bits of the smallest normal half, 2^-14."""
_PIECE = 1 << 15
"""Elements at a time: with what is worked out of them, they stay in the cache."""


def rounded(x: Array) -> Array:
    """The values of `x` (float32, any shape) rounded to half precision, as float32."""
    flat = np.ascontiguousarray(x, np.float32).reshape(-1)
    out = np.empty_like(flat)
    for first in range(0, flat.size, _PIECE):
        piece = slice(first, first + _PIECE)
        _round(flat[piece], out[piece])
    return out.reshape(np.shape(x))


def _round(x: Array, out: Array) -> None:
    bits, found = x.view(np.uint32), out.view(np.uint32)
    np.right_shift(bits, _CUT, out=found)
    np.bitwise_and(found, 1, out=found)
    found += np.uint32((1 << (_CUT - 1)) - 1)
    found += bits
    np.bitwise_and(found, np.uint32(0xFFFFFFFF ^ ((1 << _CUT) - 1)), out=found)
    # What is no normal half and not zero; counted from the smallest normal one, its bits are far away.
    size = np.bitwise_and(bits, np.uint32(0x7FFFFFFF))
    far = np.subtract(size, np.uint32(_NORMAL)) > np.uint32(_LARGEST - _NORMAL)
    np.logical_and(far, size, out=far)
    if far.any():
        places = np.flatnonzero(far)
        out[places] = x[places].astype(np.float16)
