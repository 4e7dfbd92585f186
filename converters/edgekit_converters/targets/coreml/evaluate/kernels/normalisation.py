"""Normalisations."""

from __future__ import annotations

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import (
    Array,
    axes_of,
    kernel,
    wide,
)


def _by_channel(values: Array, rank: int) -> Array:
    return values.reshape((-1,) + (1,) * (rank - 2))


@kernel("batch_norm")
def _batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    epsilon: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
) -> Array:
    """As one factor and one offset a channel, made of the parameters in float64."""
    scale = 1 / np.sqrt(wide(variance) + wide(epsilon))
    factor = scale if gamma is None else wide(gamma) * scale
    offset = -wide(mean) * factor + (0 if beta is None else wide(beta))
    factor, offset = (_by_channel(item.astype(np.float32), x.ndim) for item in (factor, offset))
    return np.asarray(x * factor + offset)


def _moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    mean = x.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    centred = x - mean
    return centred, np.square(centred).mean(axis=axes, keepdims=True)


@kernel("instance_norm")
def _instance_norm(x: Array, epsilon: Array, gamma: Array | None = None, beta: Array | None = None) -> Array:
    centred, variance = _moments(x, tuple(range(2, x.ndim)))
    y = centred / np.sqrt(variance + epsilon)
    y = y if gamma is None else y * _by_channel(gamma, x.ndim)
    return np.asarray(y if beta is None else y + _by_channel(beta, x.ndim))


@kernel("layer_norm")
def _layer_norm(
    x: Array,
    epsilon: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
) -> Array:
    found = axes_of(axes, x.ndim)
    centred, variance = _moments(x, found)
    y = centred / np.sqrt(variance + epsilon)
    shape = tuple(n if i in found else 1 for i, n in enumerate(x.shape))
    y = y if gamma is None else y * gamma.reshape(shape)
    return np.asarray(y if beta is None else y + beta.reshape(shape))


@kernel("l2_norm")
def _l2_norm(x: Array, epsilon: Array) -> Array:
    """Over the last three axes together."""
    total = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return np.asarray(x / np.sqrt(total + epsilon))


@kernel("local_response_norm")
def _local_response_norm(x: Array, size: Array, alpha: Array, beta: Array, k: Array) -> Array:
    """Over `size` channels around each one; of an even size the larger half lies before, as in PyTorch."""
    width = int(size)
    padding = [(0, 0), (width // 2, (width - 1) // 2)] + [(0, 0)] * (x.ndim - 2)
    squares = np.pad(np.square(x), padding)
    total = np.zeros_like(x)
    for i in range(width):
        total += squares[:, i : i + x.shape[1]]
    return np.asarray(x / np.power(k + alpha / width * total, beta))
