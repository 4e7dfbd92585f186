"""Ops that only move, copy, count or make values."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.elementwise import is_float
from edgekit_converters.targets.coreml.evaluate.kernels.registry import (
    Array,
    axes_of,
    kernel,
    undefined,
    unsupported,
    whole,
)


@kernel("identity", moves=True)
def _identity(x: Any) -> Any:
    return x


@kernel("reshape", moves=True)
def _reshape(x: Array, shape: Array) -> Array:
    """A 0 keeps the axis that has the same place counted from the end; one -1 takes what is left."""
    if not np.size(shape):
        return x.reshape(())
    wanted = whole(shape)
    behind = x.ndim - len(wanted)
    kept = [x.shape[i + behind] if i + behind >= 0 else 1 for i in range(len(wanted))]
    return x.reshape([k if n == 0 else n for n, k in zip(wanted, kept, strict=True)])


@kernel("reshape_like", moves=True)
def _reshape_like(
    x: Array,
    ref_tensors: tuple[Array, ...],
    begins: tuple[Array, ...],
    ends: tuple[Array, ...],
    end_masks: tuple[Array, ...],
) -> Array:
    """The shape is put together of ranges of the reference tensors' shapes."""
    sizes: list[int] = []
    for ref, begin, end, masked in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += ref.shape[int(begin) : None if bool(masked) else int(end)]
    return x.reshape(sizes)


@kernel("transpose", moves=True)
def _transpose(x: Array, perm: Array) -> Array:
    return np.ascontiguousarray(np.transpose(x, whole(perm))) if np.size(perm) else x


@kernel("expand_dims", moves=True)
def _expand_dims(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, whole(axes))


@kernel("squeeze", moves=True)
def _squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, None if axes is None else whole(axes))


@kernel("flatten2d", moves=True)
def _flatten2d(x: Array, axis: Array) -> Array:
    at = int(axis)
    return x.reshape(int(np.prod(x.shape[:at])), -1)


@kernel("concat", moves=True)
def _concat(values: tuple[Array, ...], axis: Array, interleave: Array) -> Array:
    at = int(axis)
    if not bool(interleave):
        return np.concatenate(values, axis=at)
    at %= values[0].ndim
    shape = list(values[0].shape)
    shape[at] *= len(values)
    return np.stack(values, axis=at + 1).reshape(shape)


@kernel("stack", moves=True)
def _stack(values: tuple[Array, ...], axis: Array) -> Array:
    return np.stack(values, axis=int(axis))


@kernel("split", moves=True)
def _split(
    x: Array, axis: Array, num_splits: Array | None = None, split_sizes: Array | None = None
) -> tuple[Array, ...]:
    at = int(axis)
    if split_sizes is None:
        count = int(num_splits) if num_splits is not None else 1
        return tuple(np.split(x, count, axis=at))
    sizes = whole(split_sizes)
    if sum(sizes) != x.shape[at]:
        raise undefined("split", f"sizes {sizes} of an axis of {x.shape[at]}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=at))


@kernel("tile", moves=True)
def _tile(x: Array, reps: Array) -> Array:
    return np.tile(x, whole(reps)) if np.size(reps) else x


@kernel("reverse", moves=True)
def _reverse(x: Array, axes: Array | None = None) -> Array:
    return np.flip(x, axes_of(axes, x.ndim))


@kernel("reverse_sequence", moves=True)
def _reverse_sequence(x: Array, lengths: Array, seq_axis: Array, batch_axis: Array) -> Array:
    moved = np.moveaxis(x, (int(batch_axis), int(seq_axis)), (0, 1))
    y = moved.copy()
    for i, length in enumerate(whole(lengths)):
        y[i, :length] = moved[i, :length][::-1]
    return np.moveaxis(y, (0, 1), (int(batch_axis), int(seq_axis)))


@kernel("pad", moves=True)
def _pad(x: Array, pad: Array, mode: str, constant_val: Array) -> Array:
    """The pairs are those of the last axes."""
    flat = whole(pad)
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    full = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    if mode == "constant":
        return np.pad(x, full, constant_values=constant_val)
    if mode == "replicate":
        return np.pad(x, full, mode="edge")
    if mode != "reflect":
        raise unsupported("pad", f"mode {mode!r}")
    if any(max(pair) >= size for pair, size in zip(full, x.shape, strict=True) if any(pair)):
        raise undefined("pad", "a reflection of more elements than there are")
    return np.pad(x, full, mode="reflect")


@kernel("crop", moves=True)
def _crop(x: Array, crop_height: Array, crop_width: Array) -> Array:
    (top, bottom), (left, right) = whole(crop_height), whole(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@kernel("band_part", moves=True)
def _band_part(x: Array, lower: Array, upper: Array) -> Array:
    row, column = np.arange(x.shape[-2])[:, None], np.arange(x.shape[-1])[None, :]
    keep = np.ones((x.shape[-2], x.shape[-1]), np.bool_)
    if int(lower) >= 0:
        keep &= (row - column) <= int(lower)
    if int(upper) >= 0:
        keep &= (column - row) <= int(upper)
    return np.where(keep, x, np.zeros((), x.dtype))


@kernel("shape")
def _shape(x: Array) -> Array:
    return np.array(x.shape, np.int32)


@kernel("fill", moves=True)
def _fill(shape: Array, value: Array) -> Array:
    return np.full(whole(shape), value) if np.size(shape) else np.asarray(value)


@kernel("fill_like", moves=True)
def _fill_like(ref_tensor: Array, value: Array) -> Array:
    return np.full(ref_tensor.shape, value)


@kernel("range_1d")
def _range_1d(start: Array, end: Array, step: Array) -> Array:
    if not is_float(start):
        return np.arange(int(start), int(end), int(step), dtype=start.dtype)
    first, last, jump = float(start), float(end), float(step)
    count = max(0, int(np.ceil((last - first) / jump)))
    return np.asarray(first + jump * np.arange(count), np.float32)


@kernel("sliding_windows", moves=True)
def _sliding_windows(x: Array, axis: Array, size: Array, stride: Array) -> Array:
    at = int(axis) % x.ndim
    view = np.lib.stride_tricks.sliding_window_view(x, int(size), axis=at)
    cut = view[(slice(None),) * at + (slice(None, None, int(stride)),)]
    return np.ascontiguousarray(np.moveaxis(cut, -1, at + 1))


def _blocks(x: Array) -> tuple[int, int, int, int]:
    number, channels, height, width = x.shape
    return number, channels, height, width


@kernel("depth_to_space", moves=True)
def _depth_to_space(x: Array, block_size: Array) -> Array:
    """Block position slowest in the channels: TensorFlow's order (ONNX's DCR)."""
    n, c, h, w = _blocks(x)
    b = int(block_size)
    parts = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // (b * b), h * b, w * b)


@kernel("space_to_depth", moves=True)
def _space_to_depth(x: Array, block_size: Array) -> Array:
    n, c, h, w = _blocks(x)
    b = int(block_size)
    parts = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * b * b, h // b, w // b)


@kernel("pixel_shuffle", moves=True)
def _pixel_shuffle(x: Array, upscale_factor: Array) -> Array:
    """Block position fastest in the channels: PyTorch's order (ONNX's CRD)."""
    n, c, h, w = _blocks(x)
    b = int(upscale_factor)
    parts = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // (b * b), h * b, w * b)


@kernel("pixel_unshuffle", moves=True)
def _pixel_unshuffle(x: Array, downscale_factor: Array) -> Array:
    n, c, h, w = _blocks(x)
    b = int(downscale_factor)
    parts = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 1, 3, 5, 2, 4)
    return parts.reshape(n, c * b * b, h // b, w // b)


@kernel("space_to_batch", moves=True)
def _space_to_batch(x: Array, block_shape: Array, paddings: Array) -> Array:
    (p, q), pads = whole(block_shape), np.asarray(paddings).astype(int)
    x = np.pad(x, [(0, 0), (0, 0), tuple(pads[0]), tuple(pads[1])])
    n, c, h, w = _blocks(x)
    parts = x.reshape(n, c, h // p, p, w // q, q).transpose(3, 5, 0, 1, 2, 4)
    return parts.reshape(n * p * q, c, h // p, w // q)


@kernel("batch_to_space", moves=True)
def _batch_to_space(x: Array, block_shape: Array, crops: Array) -> Array:
    (p, q), cut = whole(block_shape), np.asarray(crops).astype(int)
    n, c, h, w = _blocks(x)
    parts = x.reshape(p, q, n // (p * q), c, h, w).transpose(2, 3, 4, 0, 5, 1)
    y = parts.reshape(n // (p * q), c, h * p, w * q)
    (top, bottom), (left, right) = cut
    return y[..., top : h * p - bottom, left : w * q - right]
