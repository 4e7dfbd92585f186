"""Products of matrices: linear, matmul, einsum, attention."""

from __future__ import annotations

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.activation import softmax
from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel


def _turned(x: Array, turn: object) -> Array:
    return np.swapaxes(x, -1, -2) if bool(turn) and x.ndim > 1 else x


@kernel("linear")
def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = x @ weight.T
    return np.asarray(y if bias is None else y + bias)


@kernel("matmul")
def _matmul(x: Array, y: Array, transpose_x: Array, transpose_y: Array) -> Array:
    return np.asarray(_turned(x, transpose_x) @ _turned(y, transpose_y))


@kernel("einsum")
def _einsum(values: tuple[Array, ...], equation: str) -> Array:
    return np.asarray(np.einsum(str(equation).replace(" ", ""), *values))


@kernel("scaled_dot_product_attention")
def _attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    """A row whose mask leaves nothing is NaN, as softmax of nothing is."""
    scores = query @ np.swapaxes(key, -1, -2) / np.float32(np.sqrt(query.shape[-1]))
    if attn_mask is not None:
        added = np.where(attn_mask, 0, -np.inf) if attn_mask.dtype == np.bool_ else attn_mask
        scores = scores + added.astype(np.float32)
    return np.asarray(softmax(scores, -1) @ value)
