"""Convolutions, pools, fully connected layers and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.reader import Op, Stored

_SAME = 0


def pads(
    g: Graph, op: Op, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """ONNX pads (top, left, bottom, right) for the op's padding: SAME is about the sizes in the file."""
    if int(g.option(op, "padding", _SAME)) != _SAME:
        return [0, 0, 0, 0]
    shape = g.tensor(op.inputs[0]).shape
    begins, ends = [], []
    for size, k, step, dilation in zip(shape[1:3], kernel, strides, dilations, strict=True):
        reach = (k - 1) * dilation + 1
        total = max((-(-size // step) - 1) * step + reach - size, 0)
        begins.append(total // 2)
        ends.append(total - total // 2)
    return [*begins, *ends]


def _geometry(g: Graph, op: Op) -> tuple[list[int], list[int]]:
    strides = [int(g.option(op, "strideH", 1)), int(g.option(op, "strideW", 1))]
    dilations = [int(g.option(op, "dilationHFactor", 1)), int(g.option(op, "dilationWFactor", 1))]
    if min(*strides, *dilations) < 1:
        raise ValueError("a stride or dilation below one")
    return strides, dilations


def weight(g: Graph, stored: Stored, perm: Sequence[int], shape: Sequence[int] | None = None) -> str:
    """A stored weight with its axes in another order; integers stay integers, behind a DequantizeLinear."""
    assert stored.data is not None
    data: Array = stored.data.transpose(perm)
    axis = list(perm).index(stored.axis)
    if shape is not None:
        data = data.reshape(shape)
    if stored.scale is None:
        return g.e.constant(data, np.float32)
    return g.dequantized(g.e.constant(data), stored, axis)


def _checked(g: Graph, op: Op, place: int) -> Stored:
    g.constant(op, place)
    return g.tensor(op.inputs[place])


def _with_bias(g: Graph, op: Op, place: int) -> list[str]:
    return [g.value(op.inputs[place])] if g.given(op, place) else []


def conv(g: Graph, op: Op) -> None:
    """CONV_2D: weights (out, h, w, in); fewer inputs than channels is a grouped convolution."""
    stored = _checked(g, op, 1)
    strides, dilations = _geometry(g, op)
    _, height, width, depth = stored.shape
    group = g.tensor(op.inputs[0]).shape[3] // depth
    made = g.e.op(
        "Conv",
        g.value(op.inputs[0], first=True),
        weight(g, stored, (0, 3, 1, 2)),
        *_with_bias(g, op, 2),
        kernel_shape=[height, width],
        strides=strides,
        dilations=dilations,
        pads=pads(g, op, (height, width), strides, dilations),
        group=group,
    )
    g.put(op.outputs[0], g.activated(op, made), first=True)


def depthwise(g: Graph, op: Op) -> None:
    """DEPTHWISE_CONV_2D: weights (1, h, w, in * multiplier)."""
    stored = _checked(g, op, 1)
    strides, dilations = _geometry(g, op)
    _, height, width, _ = stored.shape
    made = g.e.op(
        "Conv",
        g.value(op.inputs[0], first=True),
        weight(g, stored, (3, 0, 1, 2)),
        *_with_bias(g, op, 2),
        kernel_shape=[height, width],
        strides=strides,
        dilations=dilations,
        pads=pads(g, op, (height, width), strides, dilations),
        group=g.tensor(op.inputs[0]).shape[3],
    )
    g.put(op.outputs[0], g.activated(op, made), first=True)


def transpose_conv(g: Graph, op: Op) -> None:
    """TRANSPOSE_CONV: inputs are the output's shape, weights (out, h, w, in), x and perhaps a bias."""
    stored = _checked(g, op, 1)
    strides, _ = _geometry(g, op)
    _, height, width, _ = stored.shape
    size = g.tensor(op.outputs[0]).shape[1:3]
    given = g.tensor(op.inputs[2]).shape[1:3]
    begins, ends = [], []
    for out, n, k, step in zip(size, given, (height, width), strides, strict=True):
        total = (n - 1) * step + k - out
        begins.append(max(total, 0) // 2)
        ends.append(total - max(total, 0) // 2)
    if min(ends) < 0:
        extra = [max(-item, 0) for item in ends]
        ends = [max(item, 0) for item in ends]
    else:
        extra = [0, 0]
    made = g.e.op(
        "ConvTranspose",
        g.value(op.inputs[2], first=True),
        weight(g, stored, (3, 0, 1, 2)),
        *_with_bias(g, op, 3),
        kernel_shape=[height, width],
        strides=strides,
        pads=[*begins, *ends],
        output_padding=extra,
    )
    g.put(op.outputs[0], g.activated(op, made), first=True)


def _pool(kind: str) -> Callable[[Graph, Op], None]:
    def write(g: Graph, op: Op) -> None:
        kernel = [int(g.option(op, "filterHeight", 1)), int(g.option(op, "filterWidth", 1))]
        strides, _ = _geometry(g, op)
        made = g.e.op(
            kind,
            g.value(op.inputs[0], first=True),
            kernel_shape=kernel,
            strides=strides,
            pads=pads(g, op, kernel, strides, (1, 1)),
        )
        g.put(op.outputs[0], g.activated(op, made), first=True)

    return write


def fully_connected(g: Graph, op: Op) -> None:
    """x (…, in) times weights (out, in); the result has the output's shape."""
    x, shape = g.value(op.inputs[0]), g.tensor(op.inputs[0]).shape
    weights = g.tensor(op.inputs[1])
    depth = weights.shape[1]
    if weights.data is not None:
        matrix = weight(g, weights, (1, 0))
    else:
        matrix = g.e.op("Transpose", g.value(op.inputs[1]), perm=[1, 0])
    if len(shape) != 2 or shape[1] != depth:
        x = g.regridded(op.inputs[0], g.e.reshape(x, [-1, depth]))
    if g.given(op, 2):  # one node, as integer kernels add the bias before they round
        made = g.e.op("Gemm", x, matrix, g.value(op.inputs[2]))
    else:
        made = g.e.op("MatMul", x, matrix)
    made = g.activated(op, made)
    if len(g.tensor(op.outputs[0]).shape) != 2:
        made = g.e.reshape(made, g.shape(op.outputs[0]))
    g.put(op.outputs[0], made)


def batch_matmul(g: Graph, op: Op) -> None:
    """Matrix products of the last two axes, either side transposed."""
    sides = []
    for place, flag in ((0, "adjX"), (1, "adjY")):
        name, rank = g.value(op.inputs[place]), len(g.tensor(op.inputs[place]).shape)
        if g.option(op, flag, False):
            name = g.e.op("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
        sides.append(name)
    g.put(op.outputs[0], g.e.op("MatMul", *sides))


OPS: dict[str, Callable[[Graph, Op], None]] = {
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "BATCH_MATMUL": batch_matmul,
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": fully_connected,
    "MAX_POOL_2D": _pool("MaxPool"),
    "TRANSPOSE_CONV": transpose_conv,
}
