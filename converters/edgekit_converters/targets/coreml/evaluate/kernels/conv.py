"""Convolution and its transpose: im2col and one matrix product a group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, at, kernel, unsupported, whole
from edgekit_converters.targets.coreml.evaluate.kernels.windows import (
    dilated,
    padded,
    paddings,
    taps,
    window_view,
)

_COLUMNS = 1 << 22
"""Elements of the im2col matrix at a time: it stays in the cache of a small machine."""


@kernel("conv")
def _conv(
    x: Array,
    weight: Array,
    strides: Array,
    pad_type: str,
    pad: Array,
    dilations: Array,
    groups: Array,
    bias: Array | None = None,
) -> Array:
    steps, gaps, parts = whole(strides), whole(dilations), int(groups)
    span = dilated(weight.shape[2:], gaps)
    x = padded(x, paddings(pad_type, pad, x.shape[2:], span, steps), 0)
    out = tuple((n - k) // s + 1 for n, k, s in zip(x.shape[2:], span, steps, strict=True))
    depthwise = parts == x.shape[1] and parts > 1
    y = (_depthwise if depthwise else _grouped)(x, weight, steps, gaps, out, parts)
    if bias is not None:
        y += bias.reshape((-1,) + (1,) * len(out))
    return y


def _depthwise(
    x: Array, weight: Array, strides: Sequence[int], gaps: Sequence[int], out: Sequence[int], groups: int
) -> Array:
    times = weight.shape[0] // groups
    y = np.zeros((x.shape[0], groups, times, *out), np.float32)
    term = np.empty_like(y)
    flat = weight.reshape(groups, times, *weight.shape[2:])
    ones = (1,) * len(out)
    for place, part in taps(x, weight.shape[2:], strides, gaps, out):
        factor = at(flat, ..., *place).reshape(groups, times, *ones)
        y += np.multiply(part[:, :, None], factor, out=term)
    return y.reshape(x.shape[0], weight.shape[0], *out)


def _grouped(
    x: Array, weight: Array, strides: Sequence[int], gaps: Sequence[int], out: Sequence[int], groups: int
) -> Array:
    """One product a group, a few samples or a few rows of one at a time."""
    number, deep, wide = x.shape[0], weight.shape[1], weight.shape[0] // groups
    depth, width = int(np.prod(weight.shape[1:])), int(np.prod(out[1:]))
    y = np.empty((number, weight.shape[0], out[0], width), np.float32)
    view = window_view(x, weight.shape[2:], strides, gaps, out)
    rows = max(1, min(out[0], _COLUMNS // max(1, depth * width)))
    size = max(1, _COLUMNS // max(1, depth * width * out[0]))
    every = (slice(None),) * len(out)
    for first, row, g in product(range(0, number, size), range(0, out[0], rows), range(groups)):
        some, lines = slice(first, first + size), slice(row, row + rows)
        part = at(view, some, slice(g * deep, (g + 1) * deep), *every, lines)
        own = slice(g * wide, (g + 1) * wide)
        found = weight[own].reshape(wide, depth) @ part.reshape(part.shape[0], depth, -1)
        y[some, own, lines] = found.reshape(part.shape[0], wide, -1, width)
    return y.reshape(number, weight.shape[0], *out)


@kernel("conv_transpose")
def _conv_transpose(
    x: Array,
    weight: Array,
    strides: Array,
    pad_type: str,
    pad: Array,
    dilations: Array,
    groups: Array,
    output_shape: Array | None = None,
    bias: Array | None = None,
) -> Array:
    """Each input element adds its kernel, scaled, to the output; the padding is then cut off."""
    steps, gaps = whole(strides), whole(dilations)
    spread = _spread(x, weight, steps, gaps, int(groups))
    pairs, out = _cut(x, spread, steps, pad_type, whole(pad), output_shape)
    ends = tuple(before + size for (before, _), size in zip(pairs, out, strict=True))
    short = [(0, 0), (0, 0), *((0, max(0, e - n)) for e, n in zip(ends, spread.shape[2:], strict=True))]
    spread = np.pad(spread, short)
    y = at(spread, ..., *(slice(b, e) for (b, _), e in zip(pairs, ends, strict=True)))
    return y if bias is None else y + bias.reshape((-1,) + (1,) * len(out))


def _spread(x: Array, weight: Array, strides: Sequence[int], gaps: Sequence[int], groups: int) -> Array:
    number, deep = x.shape[0], x.shape[1] // groups
    wide, sizes = weight.shape[1], x.shape[2:]
    span = dilated(weight.shape[2:], gaps)
    full = tuple((n - 1) * s + k for n, s, k in zip(sizes, strides, span, strict=True))
    y = np.zeros((number, groups * wide, *full), np.float32)
    for g in range(groups):
        flat = x[:, g * deep : (g + 1) * deep].reshape(number, deep, -1)
        matrix = weight[g * deep : (g + 1) * deep]
        own = y[:, g * wide : (g + 1) * wide]
        for place, part in taps(own, weight.shape[2:], strides, gaps, sizes):
            found = at(matrix, ..., *place).T @ flat
            part += found.reshape(number, wide, *sizes)
    return y


def _cut(
    x: Array,
    spread: Array,
    strides: Sequence[int],
    pad_type: str,
    pad: Sequence[int],
    output_shape: Array | None,
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """What is cut before and behind, and the sizes that stay."""
    full = spread.shape[2:]
    if pad_type == "custom":
        pairs = tuple((pad[2 * i], pad[2 * i + 1]) for i in range(len(full)))
    elif pad_type == "valid":
        pairs = tuple((0, 0) for _ in full)
    elif pad_type == "same":
        wanted = whole(output_shape)[2:] if output_shape is not None else None
        sizes = wanted or tuple(n * s for n, s in zip(x.shape[2:], strides, strict=True))
        total = tuple(max(f - n, 0) for f, n in zip(full, sizes, strict=True))
        pairs = tuple((t // 2, t - t // 2) for t in total)
    else:
        raise unsupported("conv_transpose", f"pad_type {pad_type!r}")
    if output_shape is not None:
        return pairs, whole(output_shape)[2:]
    return pairs, tuple(f - b - a for f, (b, a) in zip(full, pairs, strict=True))
