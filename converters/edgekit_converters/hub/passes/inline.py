"""Local functions, and branches of If whose condition is constant, become part of the graph."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassResult
from onnx_ir.passes.common import InlinePass

from edgekit.errors import SourceError
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import NO_FUNCTIONS


class InlineFunctions(Pass):
    """Calls of the model's own functions are replaced by their bodies."""

    ensures = (NO_FUNCTIONS,)

    def call(self, model: ir.Model) -> PassResult:
        if not model.functions:
            return PassResult(model, False)
        try:
            inline = InlinePass()
            inline(model)
        except (ValueError, ir.passes.InvariantError) as error:
            raise SourceError(
                f"a local function cannot be inlined: {error}",
                remedy="export the model without functions",
                code="unsupported_op",
            ) from error
        model.functions.clear()
        return PassResult(model, True)
