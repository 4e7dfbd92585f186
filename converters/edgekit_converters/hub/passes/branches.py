"""An If whose condition is constant is replaced by the branch that is taken."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import Names, names_of
from edgekit_converters.hub.nodes import constant
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.rewrite import take_over


class TakeBranches(Pass):
    """Every If whose condition is an initializer."""

    def call(self, model: ir.Model) -> PassResult:
        names, changed = names_of(model), False
        for node in list(model.graph):
            if node.op_type == "If" and not node.domain and node.inputs:
                condition = constant(node.inputs[0])
                if condition is not None and condition.size == 1:
                    _take(model.graph, node, bool(condition.reshape(-1)[0]), names)
                    changed = True
        return PassResult(model, changed)


def _take(graph: ir.Graph, node: ir.Node, taken: bool, names: Names) -> None:
    """Move the nodes of one branch before the If, and let its outputs stand for the If's."""
    branch = node.attributes["then_branch" if taken else "else_branch"].as_graph()
    outputs = list(branch.outputs)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        del branch.initializers[value.name or ""]
        value.name = names.fresh(value.name or "v")
        graph.register_initializer(value)
    for inner in list(branch):
        branch.remove(inner)
        for out in inner.outputs:
            if out.name:
                out.name = names.fresh(out.name)
        graph.insert_before(node, inner)
    for old, new in zip(node.outputs, outputs, strict=True):
        take_over(graph, node, old, new)
    graph.remove(node, safe=True)
