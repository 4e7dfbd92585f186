"""Elementwise operators with two operands, and sums in place of differences.

1. Sum, Max and Min of many are taken two at a time; of one, they are the operand;
2. a difference of two computed tensors is a sum with the negative (the accelerator subtracts constants only).
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.targets.tidl.checks import computed
from edgekit_converters.targets.tidl.rewrites.table import rewrite


@rewrite("Sum", "Max", "Min")
def many_to_pairs(node: ir.Node, build: Builder) -> Result:
    """Chain the operands."""
    given = [item for item in node.inputs if item is not None]
    if len(given) == 2 and node.op_type != "Sum":
        return None
    kind = "Add" if node.op_type == "Sum" else node.op_type
    value = given[0]
    for item in given[1:]:
        value = build(kind, value, item)
    return value


@rewrite("Sub")
def difference_to_sum(node: ir.Node, build: Builder) -> Result:
    """a - b = a + (-1) b, exactly."""
    if not all(computed(item) for item in node.inputs):
        return None
    return build("Add", node.inputs[0], build("Mul", node.inputs[1], -1.0))
