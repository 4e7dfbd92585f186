"""Activations. `activate` also serves the recurrent ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.elementwise import erf
from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, add, kernel, unsupported


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def hard_sigmoid(x: Array, alpha: Any = 0.2, beta: Any = 0.5) -> Array:
    """min(max(alpha * x + beta, 0), 1)."""
    return np.asarray(np.clip(x * np.float32(alpha) + np.float32(beta), 0, 1))


_BY_NAME: dict[str, Callable[[Array], Any]] = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
    "hard_sigmoid": hard_sigmoid,
    "sigmoid_hard": hard_sigmoid,
    # Core ML's Keras-derived constants of scaled tanh.
    "scaled_tanh": lambda x: np.float32(1.7159) * np.tanh(x * np.float32(2 / 3)),
}


def activate(name: str, x: Array) -> Array:
    """An activation by the name that the recurrent ops give it."""
    if name not in _BY_NAME:
        raise unsupported("activation", f"{name!r} is not known")
    return np.asarray(_BY_NAME[name](x))


def _relu(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0))


def _relu6(x: Array) -> Array:
    return np.asarray(np.clip(x, 0, 6))


def _silu(x: Array) -> Array:
    return np.asarray(x * sigmoid(x))


def _softplus(x: Array) -> Array:
    return softplus(x)


def _softsign(x: Array) -> Array:
    return np.asarray(x / (1 + np.abs(x)))


def _sigmoid(x: Array) -> Array:
    return sigmoid(x)


add(("relu",), _relu, moves=True)
add(("relu6",), _relu6, moves=True)
add(("silu",), _silu)
add(("sigmoid",), _sigmoid)
add(("softplus",), _softplus)
add(("softsign",), _softsign)


@kernel("clamped_relu")
def _clamped_relu(x: Array, alpha: Array, beta: Array) -> Array:
    return np.asarray(np.where(x >= 0, np.minimum(x, beta), np.minimum(beta, x * alpha)))


@kernel("elu")
def _elu(x: Array, alpha: Array) -> Array:
    return np.asarray(np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))


@kernel("gelu")
def _gelu(x: Array, mode: str = "EXACT") -> Array:
    if mode == "EXACT":
        return np.asarray(0.5 * x * (1 + erf(x / np.float32(np.sqrt(2)))))
    if mode == "TANH_APPROXIMATION":
        inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)))
    if mode == "SIGMOID_APPROXIMATION":
        return np.asarray(x * sigmoid(np.float32(1.702) * x))
    raise unsupported("gelu", f"mode {mode!r}")


@kernel("leaky_relu")
def _leaky_relu(x: Array, alpha: Array) -> Array:
    return np.asarray(np.where(x >= 0, x, alpha * x))


@kernel("linear_activation")
def _linear_activation(x: Array, alpha: Array, beta: Array) -> Array:
    return np.asarray(alpha * x + beta)


def _by_channel(values: Array, rank: int) -> Array:
    """A vector of the channels (axis 1), shaped so that it broadcasts."""
    return values.reshape((-1,) + (1,) * (rank - 2))


@kernel("prelu")
def _prelu(x: Array, alpha: Array) -> Array:
    return np.asarray(np.where(x > 0, x, _by_channel(alpha, x.ndim) * x))


@kernel("scaled_tanh")
def _scaled_tanh(x: Array, alpha: Array, beta: Array) -> Array:
    return np.asarray(alpha * np.tanh(beta * x))


@kernel("sigmoid_hard")
def _sigmoid_hard(x: Array, alpha: Array, beta: Array) -> Array:
    return hard_sigmoid(x, alpha, beta)


@kernel("softmax")
def _softmax(x: Array, axis: Array) -> Array:
    return softmax(x, int(axis))


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum(exp(x)), shifted by the largest value."""
    raised = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True))


@kernel("softplus_parametric")
def _softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    return np.asarray(_by_channel(alpha, x.ndim) * softplus(_by_channel(beta, x.ndim) * x))


@kernel("thresholded_relu")
def _thresholded_relu(x: Array, alpha: Array) -> Array:
    return np.asarray(np.where(x >= alpha, x, 0))
