"""quantize, dequantize, and the compressed constants: decompressed once, when a package is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.elementwise import half_even
from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel, undefined, whole


def _spread(values: Array | None, rank: int, axis: Any) -> Any:
    """A scale or zero point, shaped so that a vector runs along `axis`."""
    if values is None:
        return 0
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if i == int(axis) % rank else 1 for i in range(rank)])


@kernel("quantize")
def _quantize(
    input: Array,  # noqa: A002  # the op's own name for it
    scale: Array,
    output_dtype: str,
    zero_point: Array | None = None,
    axis: Any = None,
) -> Array:
    limits = np.iinfo(np.dtype(str(output_dtype)))
    offset = np.asarray(_spread(zero_point, input.ndim, axis), np.float32)
    found = half_even(input / _spread(scale, input.ndim, axis)) + offset
    return np.clip(found, limits.min, limits.max).astype(limits.dtype)


@kernel("dequantize")
def _dequantize(
    input: Array,  # noqa: A002  # the op's own name for it
    scale: Array,
    zero_point: Array | None = None,
    axis: Any = None,
) -> Array:
    offset = np.asarray(_spread(zero_point, input.ndim, axis), np.float32)
    return np.asarray((input.astype(np.float32) - offset) * _spread(scale, input.ndim, axis))


@kernel("constexpr_affine_dequantize")
def _affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    return np.asarray(_dequantize(quantized_data, scale, zero_point, axis))


@kernel("constexpr_cast")
def _constant_cast(source_val: Array, output_dtype: str) -> Array:
    return source_val.astype(np.float32)


def _bits(packed: Array, width: int, count: int) -> Array:
    """Unsigned numbers of `width` bits, packed from the lowest bit of each byte on."""
    flat = np.unpackbits(packed.astype(np.uint8), bitorder="little")[: count * width]
    return flat.reshape(count, width).astype(np.int64) @ (1 << np.arange(width))


@kernel("constexpr_lut_to_dense", moves=True)
def _lut_to_dense(indices: Array, lut: Array, shape: Array | None = None, vector_axis: Any = None) -> Array:
    if shape is None:
        return _looked_up(indices, lut, vector_axis)
    sizes = whole(shape)
    width = int(np.log2(lut.size))
    return lut.reshape(-1)[_bits(indices, width, int(np.prod(sizes)))].reshape(sizes)


def _looked_up(indices: Array, lut: Array, vector_axis: Any) -> Array:
    """`lut` is one table for each block of `indices`, with vectors of values as its last axis."""
    blocks = lut.shape[: indices.ndim]
    if any(n % m for n, m in zip(indices.shape, blocks, strict=True)):
        raise undefined("constexpr_lut_to_dense", f"tables {blocks} for indices {indices.shape}")
    place: Any = tuple(
        (np.arange(n) // (n // m)).reshape([-1 if j == i else 1 for j in range(indices.ndim)])
        for i, (n, m) in enumerate(zip(indices.shape, blocks, strict=True))
    )
    found = lut[(*place, indices.astype(np.int64))]
    if lut.shape[-1] == 1:
        return np.asarray(found[..., 0])
    along = int(vector_axis) % indices.ndim
    moved = np.moveaxis(found, -1, along + 1)
    shape = [n * (lut.shape[-1] if i == along else 1) for i, n in enumerate(indices.shape)]
    return moved.reshape(shape)


@kernel("constexpr_sparse_to_dense", moves=True)
def _sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    if shape is not None:
        mask = _bits(mask, 1, int(np.prod(whole(shape)))).reshape(whole(shape))
    found = np.zeros(mask.shape, nonzero_data.dtype)
    found[mask != 0] = nonzero_data
    return found


def _by_block(values: Array, shape: tuple[int, ...]) -> Array:
    """Each value repeated over its block."""
    for axis, (n, m) in enumerate(zip(shape, values.shape, strict=True)):
        if n % m:
            raise undefined("constexpr_blockwise_shift_scale", f"blocks {values.shape} of {shape}")
        values = np.repeat(values, n // m, axis=axis)
    return values


@kernel("constexpr_blockwise_shift_scale")
def _blockwise(data: Array, scale: Array, offset: Array | None = None) -> Array:
    shifted = data.astype(np.float32)
    if offset is not None:
        shifted = shifted - _by_block(offset.astype(np.float32), data.shape)
    return np.asarray(shifted * _by_block(scale, data.shape))


@kernel("constexpr_lut_to_sparse", moves=True)
def _lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Any = None
) -> tuple[Array, Array]:
    dense = _sparse_to_dense(indices_nonzero_data, indices_mask)
    found = _looked_up(dense, lut, vector_axis)
    mask = indices_mask
    if lut.shape[-1] > 1:
        mask = np.repeat(indices_mask, lut.shape[-1], axis=int(vector_axis))
    return mask, found[mask != 0]


@kernel("constexpr_sparse_blockwise_shift_scale")
def _sparse_blockwise(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    dense = _blockwise(_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]
