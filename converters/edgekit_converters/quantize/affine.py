"""A matrix product with constant scales and shifts behind it becomes one Gemm, a Sum of two an Add.

1. MatMul or Gemm (constant matrix), then Mul or Div by one constant per column: the matrix is scaled.
2. Then Add or Sub of one constant per column: the bias moves; a MatMul becomes a Gemm with a bias.

What an exporter leaves of a dense layer goes this way (the hub does the same to convolutions); rounding
would happen at each of these steps otherwise. The op takes the name of the tensor it replaces, so that
its range is still known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize.graphs import constant, remove_unused, store
from edgekit_converters.quantize.roles import array, integer, number

_PRODUCTS = ("MatMul", "Gemm")
_SHIFTS = ("Add", "Sub")
_SCALES = ("Mul", "Div")


def fold(graph: ir.Graph) -> int:
    """Fold in place; gives how many nodes went away."""
    count = 0
    for node in list(graph):
        if node.op_type == "Sum" and len(node.inputs) == 2:
            node.op_type = "Add"
        while node.op_type in _PRODUCTS and node.graph is graph:
            following = _follower(node)
            changed = None if following is None else _folded(graph, node, following)
            if changed is None:
                break
            node, count = changed, count + 1  # a MatMul became a Gemm
    remove_unused(graph)
    return count


def _follower(node: ir.Node) -> ir.Node | None:
    output = node.outputs[0]
    readers = output.consumers()
    if output.is_graph_output() or len(readers) != 1 or readers[0].op_type not in _SHIFTS + _SCALES:
        return None
    if any(array(item) is None for item in node.inputs[1:] if item is not None):
        return None
    exact = number(node, "alpha", 1) == 1 and number(node, "beta", 1) == 1
    return readers[0] if exact and constant(node.inputs[1]).ndim == 2 else None


def _folded(graph: ir.Graph, node: ir.Node, following: ir.Node) -> ir.Node | None:
    """`node` with `following` in it, or None when the constant is not one per column."""
    position = next(i for i, value in enumerate(following.inputs) if value is node.outputs[0])
    if position == 1 and following.op_type in ("Sub", "Div"):
        return None
    other = following.inputs[1 - position]
    vector = None if array(other) is None else _per_column(constant(other), node)
    if vector is None:
        return None
    if following.op_type in _SHIFTS:
        sign = -1 if following.op_type == "Sub" else 1
        if node.op_type == "MatMul":
            return _gemm(graph, node, following, sign * vector)
        _set_bias(graph, node, following, _bias(node, vector) + sign * vector)
    else:
        _scale(graph, node, following, 1 / vector if following.op_type == "Div" else vector)
    _take_over(graph, node, following)
    return node


def _per_column(values: Any, node: ir.Node) -> Any:
    """`values` as one float64 per output column, or None."""
    shape = node.outputs[0].shape
    weight = constant(node.inputs[1])
    columns = int(weight.shape[0 if integer(node, "transB", 0) else 1])
    if shape is None or values.ndim > len(shape) or values.size not in (1, columns):
        return None
    if values.size != 1 and values.shape[-1] != columns:
        return None
    return np.broadcast_to(values.reshape(-1).astype(np.float64), (columns,))


def _bias(node: ir.Node, like: Any) -> Any:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return np.zeros(like.shape)
    return np.broadcast_to(constant(node.inputs[2]).astype(np.float64), like.shape)


def _scale(graph: ir.Graph, node: ir.Node, following: ir.Node, factor: Any) -> None:
    spread = factor[:, None] if integer(node, "transB", 0) else factor
    weight = (constant(node.inputs[1]) * spread).astype(np.float32)
    node.replace_input_with(1, store(graph, f"{following.outputs[0].name}_weight", weight))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        _set_bias(graph, node, following, _bias(node, factor) * factor)


def _set_bias(graph: ir.Graph, node: ir.Node, following: ir.Node, bias: Any) -> None:
    value = store(graph, f"{following.outputs[0].name}_bias", bias.astype(np.float32))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, value)


def _gemm(graph: ir.Graph, node: ir.Node, following: ir.Node, bias: Any) -> ir.Node | None:
    left = node.inputs[0]
    if left is None or left.shape is None or len(left.shape) != 2:
        return None
    made = ir.Node("", "Gemm", [left, node.inputs[1]], name=f"{node.name}_gemm", num_outputs=1)
    made.outputs[0].name = f"{node.outputs[0].name}_gemm"
    made.outputs[0].type, made.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    node.append(made)
    ir.convenience.replace_all_uses_with(node.outputs[0], made.outputs[0])
    graph.remove(node, safe=True)
    _set_bias(graph, made, following, bias)
    _take_over(graph, made, following)
    return made


def _take_over(graph: ir.Graph, node: ir.Node, following: ir.Node) -> None:
    """Let `node` make the tensor that `following` made, under its name."""
    old, new = following.outputs[0], node.outputs[0]
    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(following, safe=True)
    new.name = name
