"""Dead code, copies and dropout go; what is left is in order and has names of its own."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import OPSET
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import (
    IN_ORDER,
    NO_COPIES,
    NO_FUNCTIONS,
    NOTHING_UNREAD,
    UNIQUE_NAMES,
)
from edgekit_converters.hub.rewrite import remove_copies, remove_unread


class RemoveDeadCode(Pass):
    """Nodes and initializers nobody reads, and copies, are removed."""

    requires = (NO_FUNCTIONS,)
    ensures = (NOTHING_UNREAD, NO_COPIES)

    def call(self, model: ir.Model) -> PassResult:
        removed = remove_copies(model.graph) + remove_unread(model.graph)
        return PassResult(model, removed > 0)


class NameInOrder(Pass):
    """Node names follow from the order, so that bytes do not depend on the process."""

    ensures = (IN_ORDER, UNIQUE_NAMES)

    def call(self, model: ir.Model) -> PassResult:
        model.graph.sort()
        for index, node in enumerate(model.graph):
            node.name, node.doc_string = f"{node.op_type}_{index}", None
            node.metadata_props.clear()
            _name_outputs(node)
        return PassResult(model, True)


def _name_outputs(node: ir.Node) -> None:
    """Optional outputs nobody reads lose their names; trailing ones are dropped."""
    if node.op_type == "Split":  # its outputs are counted
        return
    known = onnx.defs.has(node.op_type, OPSET, node.domain)
    least = onnx.defs.get_schema(node.op_type, OPSET, node.domain).min_output if known else len(node.outputs)
    last = max(index for index, out in enumerate(node.outputs) if out.uses() or out.is_graph_output())
    node.resize_outputs(max(last + 1, min(least, len(node.outputs))))
    for out in node.outputs[least:]:
        if not out.uses() and not out.is_graph_output():
            out.name = ""
