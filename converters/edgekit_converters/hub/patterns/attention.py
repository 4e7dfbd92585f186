"""Attention as exporters write it out: Softmax(scale · Q·K + mask) · V.

Opset 21 has no operator for it; a lowering that has one asks `attention_of` the last product.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, rank
from edgekit_converters.hub.patterns.reading import factors, made_by


@dataclass(frozen=True)
class Attention:
    """What attention reads; the last axis of the turned keys counts the keys, the mask follows the scale."""

    queries: ir.Value
    turned_keys: ir.Value
    values: ir.Value
    scale: float
    mask: ir.Value | None


def attention_of(node: ir.Node) -> Attention | None:
    """The attention that the product `node` ends, None when it ends none."""
    if node.op_type != "MatMul" or node.domain:
        return None
    weights, values = made_by(node.inputs[0], "Softmax"), node.inputs[1]
    size = rank(node.inputs[0])
    if weights is None or values is None or not size or attr_int(weights, "axis", -1) not in (-1, size - 1):
        return None
    scores = weights.inputs[0]
    masked = made_by(scores, "Add")
    choices: list[tuple[ir.Value | None, ir.Value | None]] = [(scores, None)]
    if masked is not None:
        first, second = masked.inputs
        choices += [(first, second), (second, first)]
    for scaled, mask in choices:
        for parts, scale in factors(scaled) if scaled is not None else ():
            product = made_by(parts[0], "MatMul") if len(parts) == 1 else None
            if product is not None and product.inputs[0] is not None and product.inputs[1] is not None:
                return Attention(product.inputs[0], product.inputs[1], values, scale, mask)
    return None
