"""What convolution and pooling share: paddings, output sizes, views of windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, unsupported, whole

Pairs = tuple[tuple[int, int], ...]


def paddings(
    pad_type: str, pad: Any, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> Pairs:
    """Elements before and after each spatial axis. `kernel` is the dilated one.

    ``same`` gives ``ceil(size / stride)`` windows with the odd element behind, ``same_lower`` before.
    """
    if pad_type == "valid":
        return tuple((0, 0) for _ in kernel)
    if pad_type == "custom":
        flat = whole(pad)
        return tuple((flat[2 * i], flat[2 * i + 1]) for i in range(len(kernel)))
    if pad_type not in ("same", "same_lower"):
        raise unsupported("padding", f"pad_type {pad_type!r}")
    found = []
    for size, width, stride in zip(sizes, kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if pad_type == "same" else (large, small))
    return tuple(found)


def padded(x: Array, pairs: Pairs, value: float) -> Array:
    """`x` with its spatial axes (from axis 2 on) padded."""
    if not any(before or after for before, after in pairs):
        return x
    shape = (*x.shape[:2], *(n + b + a for n, (b, a) in zip(x.shape[2:], pairs, strict=True)))
    out = np.full(shape, value, x.dtype)
    middle: Any = (..., *(slice(b, b + n) for n, (b, _) in zip(x.shape[2:], pairs, strict=True)))
    out[middle] = x
    return out


def window_view(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> Array:
    """View (n, c, *kernel, *out) of padded `x`."""
    steps = x.strides[2:]
    shape = (*x.shape[:2], *kernel, *out)
    jumps = (
        *x.strides[:2],
        *(step * d for step, d in zip(steps, dilations, strict=True)),
        *(step * s for step, s in zip(steps, strides, strict=True)),
    )
    return as_strided(x, shape, jumps, writeable=False)


def taps(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each place in the kernel: the place, and the elements under it for every window."""
    for place in product(*(range(k) for k in kernel)):
        cut = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(place, dilations, out, strides, strict=True)
        )
        yield place, x[(slice(None), slice(None), *cut)]


def dilated(kernel: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
    """What a dilated kernel spans."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
