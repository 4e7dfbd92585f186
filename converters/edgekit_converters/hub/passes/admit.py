"""What the hub does not take is refused here, with the node named: the graph is a plain dataflow of tensors.

Control flow, sequences, optionals, strings, operators that no specification defines.
"""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit.errors import SourceError
from edgekit_converters.hub.nodes import label
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import NO_CONTROL_FLOW, NO_FUNCTIONS

CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_STRINGS = frozenset({"StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"})
_OWN = frozenset({"", "ai.onnx.ml"})


class Admit(Pass):
    """Refuse what is no dataflow of tensors by known operators."""

    requires = (NO_FUNCTIONS,)
    ensures = (NO_CONTROL_FLOW,)

    def call(self, model: ir.Model) -> PassResult:
        for port in (*model.graph.inputs, *model.graph.outputs):
            _check_type(port, f"{port.name!r}")
        for node in model.graph:
            _check_kind(node, model.opset_imports.get(node.domain, 1))
            for value in (*node.inputs, *node.outputs):
                if value is not None:
                    _check_type(value, label(node))
        return PassResult(model, False)


def _check_type(value: ir.Value, who: str) -> None:
    """Only tensors of numbers and truth values."""
    kind = value.type
    if kind is not None and not isinstance(kind, ir.TensorType):
        raise SourceError(
            f"{who}: {type(kind).__name__} is not supported, only tensors are", code="unsupported_type"
        )
    if value.dtype == ir.DataType.STRING:
        raise SourceError(f"{who}: strings are not supported", code="unsupported_type")


def _check_kind(node: ir.Node, version: int) -> None:
    if node.domain == "" and node.op_type in CONTROL:
        raise SourceError(
            f"{label(node)}: control flow is not supported",
            remedy="export the model without control flow",
            code="control_flow",
        )
    if node.domain == "" and node.op_type in _STRINGS:
        raise SourceError(f"{label(node)}: strings are not supported", code="unsupported_type")
    if node.domain in _OWN:
        known = onnx.defs.has(node.op_type, version, node.domain)
    else:
        known = (node.domain, node.op_type) in contrib()
    if not known:
        raise SourceError(
            f"{label(node)}: no such operator in domain {node.domain or 'ai.onnx'!r} at version {version}",
            remedy="custom operators cannot be converted; export the model without them",
            code="unsupported_op",
        )


@functools.cache
def contrib() -> frozenset[tuple[str, str]]:
    """The operators of other domains that onnxruntime runs."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return frozenset((item.domain, item.name) for item in state.get_all_operator_schema())
