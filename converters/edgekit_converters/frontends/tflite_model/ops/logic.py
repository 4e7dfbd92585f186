"""Comparisons, logic, choice, casts, and the ops that change a tensor's grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.ops.arithmetic import first
from edgekit_converters.frontends.tflite_model.reader import Op

_COMPARISONS = {
    "EQUAL": "Equal",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
}


def comparison(g: Graph, op: Op) -> None:
    """Two inputs → bool."""
    a, b = (g.value(i) for i in op.inputs[:2])
    g.put(op.outputs[0], g.e.op(_COMPARISONS[op.kind], a, b))


def not_equal(g: Graph, op: Op) -> None:
    """The opposite of EQUAL, so that NaN differs from itself."""
    a, b = (g.value(i) for i in op.inputs[:2])
    g.put(op.outputs[0], g.e.op("Not", g.e.op("Equal", a, b)))


def logical_not(g: Graph, op: Op) -> None:
    """not x."""
    g.put(op.outputs[0], g.e.op("Not", g.value(op.inputs[0])))


def select(g: Graph, op: Op) -> None:
    """SELECT with a condition of its operands' shape, SELECT_V2 broadcast."""
    condition, a = (g.tensor(i).shape for i in op.inputs[:2])
    if op.kind == "SELECT" and len(condition) == 1 and len(a) > 1:
        raise g.refusal(op, "chooses whole rows", "unsupported_attribute")
    g.put(op.outputs[0], g.e.op("Where", *(g.value(i) for i in op.inputs[:3])))


def cast(g: Graph, op: Op) -> None:
    """Another type; of quantized tensors the integers are meant."""
    out = g.tensor(op.outputs[0])
    if out.scale is not None or g.tensor(op.inputs[0]).scale is not None:
        raise g.refusal(op, "casts a quantized tensor", "unsupported_type")
    g.put(op.outputs[0], g.e.cast(g.value(op.inputs[0]), out.dtype))


def regrid(g: Graph, op: Op) -> None:
    """QUANTIZE and DEQUANTIZE: the same real value, rounded to the output's grid if it has one."""
    turned = first(g, op, 1)
    name = g.value(op.inputs[0], first=turned)
    if g.tensor(op.outputs[0]).dtype == np.float16:
        name = g.e.cast(name, np.float16)
    g.put(op.outputs[0], name, first=turned)


OPS: dict[str, Callable[[Graph, Op], None]] = {
    **dict.fromkeys(_COMPARISONS, comparison),
    "CAST": cast,
    "DEQUANTIZE": regrid,
    "LOGICAL_NOT": logical_not,
    "NOT_EQUAL": not_equal,
    "QUANTIZE": regrid,
    "SELECT": select,
    "SELECT_V2": select,
}
