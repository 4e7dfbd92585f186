"""Axes counted from the front wherever the rank is known."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import attr_int, constant, front, operand, rank, required
from edgekit_converters.hub.normal.table import rule

_ATTRIBUTE = (
    *("ArgMax", "ArgMin", "Concat", "DequantizeLinear", "Flatten", "Gather", "GatherElements", "Hardmax"),
    *("LayerNormalization", "LogSoftmax", "LpNormalization", "QuantizeLinear", "ScatterElements", "Softmax"),
    *("Split", "TopK"),
)
_REDUCTIONS = tuple(
    f"Reduce{kind}"
    for kind in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
)
_INPUT = {"Squeeze": 1, "CumSum": 1, "Slice": 3, "Pad": 3, **dict.fromkeys(_REDUCTIONS, 1)}
_DEFAULTS = {
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "LpNormalization", "TopK"), -1
    ),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "Flatten"), 1),
}


@rule(*_ATTRIBUTE)
def attribute(node: ir.Node, b: Builder) -> Result:
    """The attribute `axis`; the default is written out."""
    size = rank(required(node, 0))
    axis = attr_int(node, "axis", _DEFAULTS.get(node.op_type, 0))
    if size is not None and (size or axis >= 0):
        node.attributes["axis"] = ir.AttrInt64("axis", axis + size if axis < 0 else axis)
    return None


@rule(*_INPUT)
def inputs(node: ir.Node, b: Builder) -> Result:
    """Axes given as a constant input."""
    place = _INPUT[node.op_type]
    return _rewritten(node, b, place, rank(required(node, 0)))


@rule("Unsqueeze")
def unsqueeze(node: ir.Node, b: Builder) -> Result:
    """Axes of the result."""
    size, given = rank(required(node, 0)), constant(operand(node, 1))
    return _rewritten(node, b, 1, None if size is None or given is None else size + given.size)


def _rewritten(node: ir.Node, b: Builder, place: int, size: int | None) -> Result:
    given = constant(operand(node, place))
    if given is None or size is None or not (given < 0).any():
        return None
    axes = np.asarray(front([int(axis) for axis in given.reshape(-1)], size), given.dtype).reshape(
        given.shape
    )
    return b.again(node, *node.inputs[:place], axes, *node.inputs[place + 1 :])


@rule("CastLike")
def cast_like(node: ir.Node, b: Builder) -> Result:
    """Cast to the type of the second input."""
    to = required(node, 1).dtype
    return None if to is None else b.cast(required(node, 0), to)


@rule("Range")
def scalars(node: ir.Node, b: Builder) -> Result:
    """Limits written as tensors of one element are scalars."""
    limits = [required(node, index) for index in range(3)]
    if all(rank(item) in (0, None) for item in limits):
        return None
    return b.again(node, *(b.reshape(item, []) if rank(item) else item for item in limits))
