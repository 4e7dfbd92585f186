"""Constant nodes become initializers. Specification: Operators.md, Constant."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import names_of
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import NO_CONSTANT_NODES
from edgekit_converters.hub.rewrite import builder_for, replace


class ConstantsToInitializers(Pass):
    """Every value a Constant node writes down becomes an initializer."""

    ensures = (NO_CONSTANT_NODES,)

    def call(self, model: ir.Model) -> PassResult:
        names = names_of(model)
        nodes = [node for node in model.graph if node.op_type == "Constant" and not node.domain]
        for node in nodes:
            build = builder_for(node, names)
            replace(model.graph, node, build, [build.constant_node(node)])
        return PassResult(model, bool(nodes))
