"""Layers that work value by value or channel by channel."""

from __future__ import annotations

import numpy as np

from edgekit_converters.frontends.caffe_model.graph import Graph, Write
from edgekit_converters.frontends.caffe_model.net import Layer
from edgekit_converters.frontends.emit import Array


def _plain(kind: str) -> Write:
    return lambda g, layer: g.put(layer, g.e.op(kind, g.x(layer)))


def relu(g: Graph, layer: Layer) -> None:
    """With a slope below zero if it has one."""
    slope = float(layer.one("negative_slope", 0.0))
    made = g.e.op("LeakyRelu", g.x(layer), alpha=slope) if slope else g.e.op("Relu", g.x(layer))
    g.put(layer, made)


def prelu(g: Graph, layer: Layer) -> None:
    """A slope a channel, or one for all."""
    slope = layer.blobs[0].reshape(-1)
    shape = (-1, *(1 for _ in g.shape(layer)[2:]))
    g.put(layer, g.e.op("PRelu", g.x(layer), g.e.constant(slope.reshape(shape), np.float32)))


def elu(g: Graph, layer: Layer) -> None:
    """alpha * (exp(x) - 1) below zero."""
    g.put(layer, g.e.op("Elu", g.x(layer), alpha=float(layer.one("alpha", 1.0))))


def _line(g: Graph, layer: Layer) -> str:
    """shift + scale * x."""
    x = g.x(layer)
    scale, shift = float(layer.one("scale", 1.0)), float(layer.one("shift", 0.0))
    if scale != 1.0:
        x = g.e.op("Mul", x, g.e.constant(scale, np.float32))
    return g.e.op("Add", x, g.e.constant(shift, np.float32)) if shift else x


def power(g: Graph, layer: Layer) -> None:
    """(shift + scale * x) ^ power."""
    made, exponent = _line(g, layer), float(layer.one("power", 1.0))
    if exponent != 1.0:
        made = g.e.op("Pow", made, g.e.constant(exponent, np.float32))
    g.put(layer, made)


def exp(g: Graph, layer: Layer) -> None:
    """base ^ (shift + scale * x); a base of -1 means e."""
    made, base = _line(g, layer), float(layer.one("base", -1.0))
    if base > 0:
        made = g.e.op("Mul", made, g.e.constant(np.log(base), np.float32))
    g.put(layer, g.e.op("Exp", made))


def log(g: Graph, layer: Layer) -> None:
    """The logarithm of shift + scale * x; a base of -1 means e."""
    made, base = g.e.op("Log", _line(g, layer)), float(layer.one("base", -1.0))
    if base > 0:
        made = g.e.op("Div", made, g.e.constant(np.log(base), np.float32))
    g.put(layer, made)


def batch_norm(g: Graph, layer: Layer) -> None:
    """Stored sums of mean and variance over their count; without scale and bias, which are a Scale layer."""
    if not layer.one("use_global_stats", True):
        raise layer.refusal("normalises by the batch at hand", "unsupported_attribute")
    mean, variance, count = (blob.reshape(-1) for blob in layer.blobs[:3])
    factor = 1.0 / count[0] if count[0] else 0.0
    one, zero = np.ones_like(mean), np.zeros_like(mean)
    given = (g.e.constant(item, np.float32) for item in (one, zero, mean * factor, variance * factor))
    g.put(layer, g.e.op("BatchNormalization", g.x(layer), *given, epsilon=float(layer.one("eps", 1e-5))))


def _along(layer: Layer, values: Array, rank: int) -> Array:
    """`values` laid along the layer's axis."""
    axis = int(layer.one("axis", 1)) % rank
    return values.reshape(*values.shape, *(1 for _ in range(rank - axis - values.ndim)))


def scale(g: Graph, layer: Layer) -> None:
    """A factor a channel (stored, or the second bottom), and perhaps an offset."""
    rank = len(g.shape(layer))
    if len(layer.bottoms) > 1:
        factor = _second(g, layer, rank)
        offset = layer.blobs[0] if layer.one("bias_term", False) else None
    else:
        factor = g.e.constant(_along(layer, layer.blobs[0], rank), np.float32)
        offset = layer.blobs[1] if layer.one("bias_term", False) else None
    made = g.e.op("Mul", g.x(layer), factor)
    if offset is not None:
        made = g.e.op("Add", made, g.e.constant(_along(layer, offset, rank), np.float32))
    g.put(layer, made)


def _second(g: Graph, layer: Layer, rank: int) -> str:
    axis, shape = int(layer.one("axis", 1)) % rank, g.shape(layer, 1)
    if axis == 0:
        return g.e.reshape(g.x(layer, 1), [0, *shape[1:], *(1 for _ in range(rank - len(shape)))])
    return g.e.reshape(g.x(layer, 1), [*shape, *(1 for _ in range(rank - axis - len(shape)))])


def bias(g: Graph, layer: Layer) -> None:
    """An offset a channel."""
    rank = len(g.shape(layer))
    offset = (
        _second(g, layer, rank)
        if len(layer.bottoms) > 1
        else g.e.constant(_along(layer, layer.blobs[0], rank), np.float32)
    )
    g.put(layer, g.e.op("Add", g.x(layer), offset))


def eltwise(g: Graph, layer: Layer) -> None:
    """Product, sum (with a factor each) or largest of all bottoms."""
    kind = {"PROD": "Mul", 0: "Mul", "SUM": "Add", 1: "Add", "MAX": "Max", 2: "Max"}[
        layer.one("operation", "SUM")
    ]
    factors = [float(value) for value in layer.settings.get("coeff", [])] or [1.0] * len(layer.bottoms)
    parts = []
    for place, factor in zip(range(len(layer.bottoms)), factors, strict=True):
        x = g.x(layer, place)
        scaled = kind == "Add" and factor != 1.0
        parts.append(g.e.op("Mul", x, g.e.constant(factor, np.float32)) if scaled else x)
    made = parts[0]
    for part in parts[1:]:
        made = g.e.op(kind, made, part)
    g.put(layer, made)


def softmax(g: Graph, layer: Layer) -> None:
    """Over one axis."""
    axis = int(layer.one("axis", 1)) % len(g.shape(layer))
    g.put(layer, g.e.op("Softmax", g.x(layer), axis=axis))


def threshold(g: Graph, layer: Layer) -> None:
    """One above the threshold."""
    limit = g.e.constant(float(layer.one("threshold", 0.0)), np.float32)
    g.put(layer, g.e.cast(g.e.op("Greater", g.x(layer), limit), np.float32))


KINDS: dict[str, Write] = {
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "BatchNorm": batch_norm,
    "Bias": bias,
    "Dropout": _plain("Identity"),
    "ELU": elu,
    "Eltwise": eltwise,
    "Exp": exp,
    "Log": log,
    "PReLU": prelu,
    "Power": power,
    "ReLU": relu,
    "Scale": scale,
    "Sigmoid": _plain("Sigmoid"),
    "Softmax": softmax,
    "TanH": _plain("Tanh"),
    "Threshold": threshold,
}
