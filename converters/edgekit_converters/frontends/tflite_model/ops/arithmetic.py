"""Elementwise: arithmetic with fused activations, functions, activations, comparisons' sources."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.reader import Op

_BINARY = {
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "DIV": "Div",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "POW": "Pow",
}
_UNARY = {
    "ABS": "Abs",
    "CEIL": "Ceil",
    "COS": "Cos",
    "ELU": "Elu",
    "EXP": "Exp",
    "FLOOR": "Floor",
    "HARD_SWISH": "HardSwish",
    "LOG": "Log",
    "LOGISTIC": "Sigmoid",
    "NEG": "Neg",
    "RELU": "Relu",
    "ROUND": "Round",
    "SIGN": "Sign",
    "SIN": "Sin",
    "SQRT": "Sqrt",
    "TANH": "Tanh",
}


def first(g: Graph, op: Op, count: int) -> bool:
    """Whether an elementwise op can be done channels first: a tensor is so, the others fit."""
    out = g.tensor(op.outputs[0]).shape
    if len(out) != 4 or not any(g.has_first(i) for i in op.inputs[:count]):
        return False
    return all(len(g.tensor(i).shape) in (0, 4) or g.tensor(i).shape == (1,) for i in op.inputs[:count])


def binary(g: Graph, op: Op) -> None:
    """Two inputs, broadcast, then the fused activation."""
    out = g.tensor(op.outputs[0])
    if op.kind == "DIV" and out.dtype.kind in "iu" and out.scale is None:
        raise g.refusal(op, "divides whole numbers", "unsupported_type")
    turned = first(g, op, 2)
    a, b = (g.value(i, first=turned) for i in op.inputs[:2])
    g.put(op.outputs[0], g.activated(op, g.e.op(_BINARY[op.kind], a, b)), first=turned)


def unary(g: Graph, op: Op) -> None:
    """One input."""
    turned = first(g, op, 1)
    g.put(op.outputs[0], g.e.op(_UNARY[op.kind], g.value(op.inputs[0], first=turned)), first=turned)


def _with(make: Callable[[Graph, Op, str], str]) -> Callable[[Graph, Op], None]:
    def write(g: Graph, op: Op) -> None:
        turned = first(g, op, 1)
        g.put(op.outputs[0], make(g, op, g.value(op.inputs[0], first=turned)), first=turned)

    return write


def _clip(low: float, high: float) -> Callable[[Graph, Op], None]:
    def write(g: Graph, op: Op, x: str) -> str:
        return g.e.op("Clip", x, g.e.constant(low, np.float32), g.e.constant(high, np.float32))

    return _with(write)


def _rsqrt(g: Graph, op: Op, x: str) -> str:
    return g.e.op("Div", g.e.constant(1, np.float32), g.e.op("Sqrt", x))


def _square(g: Graph, op: Op, x: str) -> str:
    return g.e.op("Mul", x, x)


def _leaky(g: Graph, op: Op, x: str) -> str:
    return g.e.op("LeakyRelu", x, alpha=float(g.option(op, "alpha", 0.0)))


def _gelu(g: Graph, op: Op, x: str) -> str:
    return g.e.op("Gelu", x, approximate="tanh" if g.option(op, "approximate", False) else "none")


def squared_difference(g: Graph, op: Op) -> None:
    """(a - b)²."""
    turned = first(g, op, 2)
    a, b = (g.value(i, first=turned) for i in op.inputs[:2])
    gap = g.e.op("Sub", a, b)
    g.put(op.outputs[0], g.e.op("Mul", gap, gap), first=turned)


def prelu(g: Graph, op: Op) -> None:
    """Slopes broadcast against the input from the right."""
    x, slope = (g.value(i) for i in op.inputs[:2])
    g.put(op.outputs[0], g.e.op("PRelu", x, slope))


def softmax(g: Graph, op: Op) -> None:
    """Over the last axis, of ``beta * x``."""
    x, beta = g.value(op.inputs[0]), float(g.option(op, "beta", 1.0)) or 1.0
    if beta != 1.0:
        x = g.e.op("Mul", x, g.e.constant(beta, np.float32))
    g.put(op.outputs[0], g.e.op("Softmax", x, axis=len(g.tensor(op.inputs[0]).shape) - 1))


def log_softmax(g: Graph, op: Op) -> None:
    """Over the last axis."""
    axis = len(g.tensor(op.inputs[0]).shape) - 1
    g.put(op.outputs[0], g.e.op("LogSoftmax", g.value(op.inputs[0]), axis=axis))


def floor_div(g: Graph, op: Op) -> None:
    """Of reals: the whole part below."""
    if g.tensor(op.outputs[0]).dtype.kind != "f":
        raise g.refusal(op, "divides whole numbers", "unsupported_type")
    a, b = (g.value(i) for i in op.inputs[:2])
    g.put(op.outputs[0], g.e.op("Floor", g.e.op("Div", a, b)))


def floor_mod(g: Graph, op: Op) -> None:
    """What the floored division leaves, with the divisor's sign."""
    if g.tensor(op.outputs[0]).dtype.kind == "i":
        g.put(op.outputs[0], g.e.op("Mod", *(g.value(i) for i in op.inputs[:2])))
        return
    a, b = (g.value(i) for i in op.inputs[:2])
    whole = g.e.op("Floor", g.e.op("Div", a, b))
    g.put(op.outputs[0], g.e.op("Sub", a, g.e.op("Mul", whole, b)))


OPS: dict[str, Callable[[Graph, Op], None]] = {
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(_UNARY, unary),
    "FLOOR_DIV": floor_div,
    "FLOOR_MOD": floor_mod,
    "GELU": _with(_gelu),
    "LEAKY_RELU": _with(_leaky),
    "LOG_SOFTMAX": log_softmax,
    "PRELU": prelu,
    "RELU6": _clip(0.0, 6.0),
    "RELU_0_TO_1": _clip(0.0, 1.0),
    "RELU_N1_TO_1": _clip(-1.0, 1.0),
    "RSQRT": _with(_rsqrt),
    "SOFTMAX": softmax,
    "SQUARE": _with(_square),
    "SQUARED_DIFFERENCE": squared_difference,
}
