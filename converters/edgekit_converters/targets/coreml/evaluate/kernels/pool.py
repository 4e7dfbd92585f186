"""Max, average and L2 pooling over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel, undefined, whole
from edgekit_converters.targets.coreml.evaluate.kernels.windows import Pairs, padded, paddings, taps


class _Windows:
    """Where the windows of one pooling lie."""

    def __init__(
        self, x: Array, kernel_sizes: Array, strides: Array, pad_type: str, pad: Array, ceil_mode: Array
    ) -> None:
        self.kernel, self.strides = whole(kernel_sizes), whole(strides)
        self.pairs = paddings(pad_type, pad, x.shape[2:], self.kernel, self.strides)
        if bool(ceil_mode) and any(before != after for before, after in self.pairs):
            raise undefined("pool", "ceil_mode with a padding that is not symmetric")
        self.out, extra = [], []
        for n, k, s, (b, a) in zip(x.shape[2:], self.kernel, self.strides, self.pairs, strict=True):
            size = (n + b + a - k) // s + 1
            if bool(ceil_mode):
                size = -((n + b + a - k) // -s) + 1
                # A window that would begin in the padding behind is left out.
                size -= int((size - 1) * s >= n + b and b + a > 0)
            self.out.append(size)
            extra.append(max(0, (size - 1) * s + k - n - b - a))
        self.behind: Pairs = tuple((b, a + e) for (b, a), e in zip(self.pairs, extra, strict=True))

    def over(self, x: Array, value: float) -> list[Array]:
        """The elements under each place of the kernel; `value` outside of `x`."""
        ones = (1,) * len(self.kernel)
        full = padded(x, self.behind, value)
        return [part for _, part in taps(full, self.kernel, self.strides, ones, self.out)]

    def counts(self, sizes: Sequence[int]) -> Array:
        """Elements of `x` in each window."""
        ones = padded(np.ones((1, 1, *sizes), np.float32), self.behind, 0)
        plain = (1,) * len(self.kernel)
        parts = taps(ones, self.kernel, self.strides, plain, self.out)
        return np.asarray(sum(part for _, part in parts))


@kernel("max_pool", moves=True)
def _max_pool(
    x: Array, kernel_sizes: Array, strides: Array, pad_type: str, pad: Array, ceil_mode: Array
) -> Array:
    parts = _Windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode).over(x, -np.inf)
    y = parts[0].copy()
    for part in parts[1:]:
        np.maximum(y, part, out=y)
    return y


def _sum(parts: Sequence[Array]) -> Array:
    y = parts[0].astype(np.float32)
    for part in parts[1:]:
        y += part
    return y


@kernel("avg_pool")
def _avg_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array,
    pad_type: str,
    pad: Array,
    ceil_mode: Array,
    exclude_padding_from_average: Array,
) -> Array:
    """Padding counts, unless excluded; so does what `ceil_mode` lets stick out (coremltools #2772)."""
    windows = _Windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    excluded = bool(exclude_padding_from_average)
    counts = windows.counts(x.shape[2:]) if excluded else np.float32(np.prod(windows.kernel))
    return np.asarray(_sum(windows.over(x, 0)) / counts)


@kernel("l2_pool")
def _l2_pool(
    x: Array, kernel_sizes: Array, strides: Array, pad_type: str, pad: Array, ceil_mode: Array
) -> Array:
    windows = _Windows(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return np.asarray(np.sqrt(_sum(windows.over(np.square(x), 0))))
