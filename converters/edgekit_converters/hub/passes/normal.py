"""Every node in its normal form (`hub/normal`)."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import names_of
from edgekit_converters.hub.normal import NORMAL
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import AT_OPSET, NO_DROPOUT
from edgekit_converters.hub.rewrite import applied, builder_for, replace


class NormalForms(Pass):
    """Apply the rules to every node, once."""

    requires = (AT_OPSET,)
    ensures = (NO_DROPOUT,)

    def call(self, model: ir.Model) -> PassResult:
        names, changed = names_of(model), False
        for node in list(model.graph):
            for rule in NORMAL.of(node):
                build = builder_for(node, names)
                values = applied(rule, node, build)
                if values is not None:
                    replace(model.graph, node, build, values)
                    changed = True
                    break
        return PassResult(model, changed)
