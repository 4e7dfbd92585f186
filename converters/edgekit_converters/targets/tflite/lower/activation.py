"""Activations that TFLite ops carry: Relu and Clip to (0, 6) or (-1, 1) after an op that is read once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3
_BOUNDS = {(0.0, np.inf): RELU, (-1.0, 1.0): RELU_N1_TO_1, (0.0, 6.0): RELU6}


def follower(node: ir.Node, *, saturated: bool = False) -> ir.Node | None:
    """The activation that is the only reader of `node`'s output; with `saturated` any Clip is one."""
    value = node.outputs[0]
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].idx != 0:
        return None
    found = uses[0].node
    fits = kind(found) is not None or (saturated and found.op_type == "Clip")
    return found if fits else None


def kind(node: ir.Node) -> int | None:
    """The fusable activation that `node` is; None for any other op."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Relu":
        return RELU
    found = bounds(node) if node.op_type == "Clip" else None
    return None if found is None else _BOUNDS.get(found)


def bounds(node: ir.Node) -> tuple[float, float] | None:
    """Both bounds of a Clip where they are constants."""
    low, high = _bound(node, 1, -np.inf), _bound(node, 2, np.inf)
    return None if low is None or high is None else (low, high)


def _bound(node: ir.Node, index: int, default: float) -> float | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return default
    return None if value.const_value is None else float(value.const_value.numpy().reshape(-1)[0])
