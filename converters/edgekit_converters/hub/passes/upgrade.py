"""Every operator in the form it has at opset 21, whatever opset the source was written in.

Older: the rules of `hub/upgrade`; an operator without one changed in its types only. Newer (22 to
27): the same, and operators that opset 21 does not have are written out.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit.errors import SourceError
from edgekit_converters.hub.build import OPSET, Builder, names_of
from edgekit_converters.hub.functions import expand
from edgekit_converters.hub.nodes import label, refuse
from edgekit_converters.hub.passes.admit import check_opset
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import AT_OPSET, NO_CONSTANT_NODES, NO_FUNCTIONS
from edgekit_converters.hub.rewrite import applied, builder_for, replace
from edgekit_converters.hub.upgrade import rules_for

_LATER_TYPES = frozenset(
    {ir.DataType.FLOAT4E2M1, ir.DataType.FLOAT8E8M0, ir.DataType.INT2, ir.DataType.UINT2}
)


class Upgrade(Pass):
    """Bring the default domain to opset 21."""

    requires = (NO_FUNCTIONS, NO_CONSTANT_NODES)
    ensures = (AT_OPSET, NO_CONSTANT_NODES)

    def call(self, model: ir.Model) -> PassResult:
        source = model.opset_imports.get("", OPSET)
        check_opset(model)
        _check_types(model)
        names = names_of(model)
        for node in list(model.graph):
            if node.domain == "":
                build = builder_for(node, names)
                values = upgraded(node, build, source)
                if values is not None:
                    replace(model.graph, node, build, values)
        model.opset_imports[""] = OPSET
        for node in model.graph:
            node.version = None
        return PassResult(model, source != OPSET)


def _check_types(model: ir.Model) -> None:
    """Element types that came after opset 21."""
    for node in model.graph:
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.dtype in _LATER_TYPES:
                raise SourceError(f"{label(node)}: {value.dtype} is not supported", code="unsupported_type")


def upgraded(node: ir.Node, build: Builder, source: int) -> list[ir.Value | None] | None:
    """What takes the place of `node`; None when it stays (its attributes may have been brought up)."""
    for rule in rules_for(node.op_type, source):
        values = applied(rule, node, build)
        if values is not None:
            return list(values)
    if onnx.defs.has(node.op_type, OPSET) and not onnx.defs.get_schema(node.op_type, OPSET).deprecated:
        return None
    values = applied(lambda item, made: expand(item, made, source), node, build)
    if values is None:
        refuse(node, f"opset {OPSET} cannot say this", code="unsupported_op")
    return list(values)
