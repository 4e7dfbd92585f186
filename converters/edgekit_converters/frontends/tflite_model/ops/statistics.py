"""Reductions, arg max, norms and running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.reader import Op

_REDUCTIONS = {
    "MEAN": "ReduceMean",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd",
    "SUM": "ReduceSum",
}
_FIRST_PLACE = (0, 2, 3, 1)


def reduction(g: Graph, op: Op) -> None:
    """Over constant axes, kept or not; channels first where the input is so and the axes stay behind."""
    shape = g.tensor(op.inputs[0]).shape
    axes = sorted({int(i) % len(shape) for i in g.constant(op, 1).reshape(-1)})
    keep = bool(g.option(op, "keepDims", False))
    if g.free and 0 in axes:
        raise g.refusal(op, "reduces over the batch", "dynamic_shape")
    turned = g.has_first(op.inputs[0]) and len(shape) == 4 and (keep or axes == [1, 2])
    x = g.value(op.inputs[0], first=turned)
    places = [_FIRST_PLACE[axis] for axis in axes] if turned else axes
    made = g.e.reduce(_REDUCTIONS[op.kind], x, sorted(places), keep=keep)
    g.put(op.outputs[0], made, first=turned and keep)


def _arg(kind: str) -> Callable[[Graph, Op], None]:
    def write(g: Graph, op: Op) -> None:
        axis = int(g.constant(op, 1).reshape(-1)[0]) % len(g.tensor(op.inputs[0]).shape)
        found = g.e.op(kind, g.value(op.inputs[0]), axis=axis, keepdims=0)
        g.put(op.outputs[0], g.e.cast(found, g.tensor(op.outputs[0]).dtype))

    return write


def l2_normalization(g: Graph, op: Op) -> None:
    """Over the last axis; lengths below 1e-6 count as 1e-6."""
    x, axis = g.value(op.inputs[0]), len(g.tensor(op.inputs[0]).shape) - 1
    size = g.e.op("Sqrt", g.e.reduce("ReduceSum", g.e.op("Mul", x, x), [axis]))
    made = g.e.op("Div", x, g.e.op("Max", size, g.e.constant(1e-6, np.float32)))
    g.put(op.outputs[0], g.activated(op, made))


def cumsum(g: Graph, op: Op) -> None:
    """Running sums along a constant axis."""
    axis = g.e.constant(int(g.constant(op, 1).reshape(-1)[0]), np.int64)
    flags: dict[str, Any] = {name: int(bool(g.option(op, name, False))) for name in ("exclusive", "reverse")}
    g.put(op.outputs[0], g.e.op("CumSum", g.value(op.inputs[0]), axis, **flags))


def top_k(g: Graph, op: Op) -> None:
    """The k largest of the last axis, and where they are."""
    k = g.e.constant(g.constant(op, 1).reshape(1), np.int64)
    names = [g.e.fresh(name) for name in ("top", "place")]
    g.e.ops("TopK", g.value(op.inputs[0]), k, outputs=names, axis=-1, largest=1, sorted=1)
    g.put(op.outputs[0], names[0])
    g.put(op.outputs[1], g.e.cast(names[1], g.tensor(op.outputs[1]).dtype))


def local_response(g: Graph, op: Op) -> None:
    """Over channels: TFLite multiplies alpha by the sum, ONNX by the mean."""
    size = 2 * int(g.option(op, "radius")) + 1
    made = g.e.op(
        "LRN",
        g.value(op.inputs[0], first=True),
        size=size,
        alpha=float(g.option(op, "alpha")) * size,
        beta=float(g.option(op, "beta")),
        bias=float(g.option(op, "bias")),
    )
    g.put(op.outputs[0], made, first=True)


OPS: dict[str, Callable[[Graph, Op], None]] = {
    **dict.fromkeys(_REDUCTIONS, reduction),
    "ARG_MAX": _arg("ArgMax"),
    "ARG_MIN": _arg("ArgMin"),
    "CUMSUM": cumsum,
    "L2_NORMALIZATION": l2_normalization,
    "LOCAL_RESPONSE_NORMALIZATION": local_response,
    "TOPK_V2": top_k,
}
