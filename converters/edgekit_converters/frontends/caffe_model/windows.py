"""Layers that slide a window: Convolution, Deconvolution, Pooling, LRN; and InnerProduct.

Caffe rounds a pool's size up, and an average counts the padding but nothing beyond it: windows that
reach over the padded edge are divided by less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgekit_converters.frontends.caffe_model.graph import Graph, Shape, Write
from edgekit_converters.frontends.caffe_model.net import Layer
from edgekit_converters.frontends.emit import Array, Emitter


def _pair(layer: Layer, plain: str, key: str, default: int) -> list[int]:
    """``plain`` once or twice, or ``key_h`` and ``key_w``."""
    given = [int(value) for value in layer.settings.get(plain, [])]
    if given:
        return [given[0], given[-1]]
    return [int(layer.one(f"{key}_{side}", default)) for side in "hw"]


def _bias(g: Graph, layer: Layer, count: int) -> list[str]:
    if not layer.one("bias_term", True):
        return []
    return [g.e.constant(layer.blobs[1].reshape(count), np.float32)]


def convolution(g: Graph, layer: Layer) -> None:
    """Weights (out, in / group, h, w)."""
    channels, count, group = g.shape(layer)[1], int(layer.one("num_output")), int(layer.one("group", 1))
    _slid(
        g,
        layer,
        "Conv",
        (count, channels // group),
        lambda n, p, d, k, s: (n + 2 * p - d * (k - 1) - 1) // s + 1,
    )


def deconvolution(g: Graph, layer: Layer) -> None:
    """Weights (in, out / group, h, w)."""
    channels, count, group = g.shape(layer)[1], int(layer.one("num_output")), int(layer.one("group", 1))
    _slid(
        g,
        layer,
        "ConvTranspose",
        (channels, count // group),
        lambda n, p, d, k, s: s * (n - 1) + d * (k - 1) + 1 - 2 * p,
    )


def _slid(
    g: Graph, layer: Layer, op: str, ends: tuple[int, int], size_of: Callable[[int, int, int, int, int], int]
) -> None:
    """A kernel slid over the picture: `ends` are the weights' first two axes, `size_of` gives an output size
    from size, pad, dilation, kernel and stride."""
    batch, _, *size = g.shape(layer)
    count = int(layer.one("num_output"))
    kernel, stride = _pair(layer, "kernel_size", "kernel", 0), _pair(layer, "stride", "stride", 1)
    pad, dilation = _pair(layer, "pad", "pad", 0), _pair(layer, "dilation", "dilation", 1)
    made = g.e.op(
        op,
        g.x(layer),
        g.e.constant(layer.blobs[0].reshape(*ends, *kernel), np.float32),
        *_bias(g, layer, count),
        kernel_shape=kernel,
        strides=stride,
        pads=pad * 2,
        dilations=dilation,
        group=int(layer.one("group", 1)),
    )
    out = [size_of(*item) for item in zip(size, pad, dilation, kernel, stride, strict=True)]
    g.put(layer, made, (batch, count, *out))


def inner_product(g: Graph, layer: Layer) -> None:
    """Everything from `axis` on, times weights (out, in)."""
    shape, count = g.shape(layer), int(layer.one("num_output"))
    if int(layer.one("axis", 1)) != 1:
        raise layer.refusal("works from another axis than 1", "unsupported_attribute")
    depth = int(np.prod(shape[1:]))
    weight = layer.blobs[0]
    weight = weight.reshape(depth, count) if layer.one("transpose", False) else weight.reshape(count, depth).T
    x = g.x(layer) if len(shape) == 2 else g.e.op("Flatten", g.x(layer), axis=1)
    made = g.e.op("Gemm", x, g.e.constant(weight, np.float32), *_bias(g, layer, count))
    g.put(layer, made, (shape[0], count))


def pooled(size: int, kernel: int, pad: int, stride: int, *, up: bool = True) -> int:
    """How many windows Caffe lays over `size`."""
    reach = size + 2 * pad - kernel
    count = (-(-reach // stride) if up else reach // stride) + 1
    return count - 1 if pad and (count - 1) * stride >= size + pad else count


def pool(
    e: Emitter, x: str, size: Sequence[int], windows: Sequence[tuple[int, int, int]], kind: str, *, up: bool
) -> tuple[str, list[int]]:
    """`x` under (kernel, pad, stride) windows; gives the value and its sizes."""
    out = [pooled(n, k, p, s, up=up) for n, (k, p, s) in zip(size, windows, strict=True)]
    kernel, begins, strides = ([item[i] for item in windows] for i in range(3))
    ends = [max((o - 1) * s + k - n - p, 0) for o, n, (k, p, s) in zip(out, size, windows, strict=True)]
    if kind == "MaxPool":
        return e.op(kind, x, kernel_shape=kernel, strides=strides, pads=[*begins, *ends]), out
    if any([*begins, *ends]):
        amounts = np.array([0, 0, *begins, 0, 0, *ends], np.int64)
        x = e.op("Pad", x, e.constant(amounts), e.constant(0, np.float32))
    made = e.op("AveragePool", x, kernel_shape=kernel, strides=strides)
    share = _shares(out, size, windows)
    return (e.op("Mul", made, e.constant(share, np.float32)) if (share != 1).any() else made), out


def _shares(out: Sequence[int], size: Sequence[int], windows: Sequence[tuple[int, int, int]]) -> Array:
    """Window area by what lies within the padded image, (1, 1, h, w)."""
    sides = []
    for o, n, (k, p, s) in zip(out, size, windows, strict=True):
        starts = np.arange(o) * s - p
        sides.append(k / (np.minimum(starts + k, n + p) - starts))
    return np.asarray(sides[0][:, None] * sides[1][None, :])[None, None]


def pooling(g: Graph, layer: Layer) -> None:
    """MAX and AVE."""
    batch, channels, *size = g.shape(layer)
    kind = {"MAX": "MaxPool", 0: "MaxPool", "AVE": "AveragePool", 1: "AveragePool"}.get(
        layer.one("pool", "MAX")
    )
    if kind is None or len(layer.tops) > 1:
        raise layer.refusal("is stochastic, or gives places", "unsupported_attribute")
    if layer.one("global_pooling", False):
        reduced = g.e.op(f"Global{kind}", g.x(layer))
        g.put(layer, reduced, (batch, channels, 1, 1))
        return
    kernel, stride = _pair(layer, "kernel_size", "kernel", 0), _pair(layer, "stride", "stride", 1)
    pad = _pair(layer, "pad", "pad", 0)
    up = layer.one("round_mode", "CEIL") in ("CEIL", 0)
    made, out = pool(g.e, g.x(layer), size, list(zip(kernel, pad, stride, strict=True)), kind, up=up)
    g.put(layer, made, (batch, channels, *out))


def lrn(g: Graph, layer: Layer) -> None:
    """Across channels, or within each."""
    size = int(layer.one("local_size", 5))
    alpha, beta = float(layer.one("alpha", 1.0)), float(layer.one("beta", 0.75))
    bias = float(layer.one("k", 1.0))
    if layer.one("norm_region", "ACROSS_CHANNELS") in ("ACROSS_CHANNELS", 0):
        g.put(layer, g.e.op("LRN", g.x(layer), size=size, alpha=alpha, beta=beta, bias=bias))
        return
    x, sizes = g.x(layer), g.shape(layer)[2:]
    window = (size, (size - 1) // 2, 1)
    mean, _ = pool(g.e, g.e.op("Mul", x, x), sizes, [window, window], "AveragePool", up=True)
    inner = g.e.op("Add", g.e.op("Mul", mean, g.e.constant(alpha, np.float32)), g.e.constant(1, np.float32))
    g.put(layer, g.e.op("Mul", x, g.e.op("Pow", inner, g.e.constant(-beta, np.float32))))


KINDS: dict[str, Write] = {
    "Convolution": convolution,
    "Deconvolution": deconvolution,
    "InnerProduct": inner_product,
    "LRN": lrn,
    "Pooling": pooling,
}
__all__ = ["KINDS", "Shape", "pool", "pooled"]
