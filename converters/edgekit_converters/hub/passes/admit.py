"""What the hub does not take is refused here, with the node named: the graph is a plain dataflow of tensors.

Control flow, sequences, optionals, strings, operators that no specification defines, values that
nothing computes, cycles, weights that are not finite, sizes no device has memory for.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit.errors import SourceError
from edgekit_converters.hub.nodes import label, static_shape
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import IN_ORDER, NO_CONTROL_FLOW, NO_FUNCTIONS
from edgekit_converters.hub.passes.sizes import LARGEST

CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_STRINGS = frozenset({"StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch"})
_WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
_OWN = frozenset({"", "ai.onnx.ml"})


NEWEST = onnx.defs.onnx_opset_version()


def check_opset(model: ir.Model) -> None:
    """Refuse what was written for a later ONNX than the one installed."""
    source = model.opset_imports.get("", 0)
    if source > NEWEST:
        raise SourceError(
            f"opset {source} is newer than this version of edgekit knows (up to {NEWEST})",
            remedy="export the model with an older opset, or update edgekit",
            code="unsupported_opset",
        )


class Connect(Pass):
    """Refuse damaged weights, what reads values that nothing computes, and cycles; put the nodes in order."""

    requires = (NO_FUNCTIONS,)
    ensures = (IN_ORDER,)

    def call(self, model: ir.Model) -> PassResult:
        check_opset(model)
        graph = model.graph
        for weight in graph.initializers.values():
            _check_weight(weight)
        for node in graph:
            _check_count(node)
            for value in node.inputs:
                if value is not None and not _exists(value):
                    raise _damaged(f"{label(node)}: reads {value.name!r}, which nothing computes")
        for port in graph.outputs:
            if not _exists(port):
                raise _damaged(f"output {port.name!r}: nothing computes it")
        try:
            graph.sort()
        except ValueError as error:
            raise _damaged(f"the graph has a cycle through {_on_cycle(graph)}") from error
        return PassResult(model, False)


def _on_cycle(graph: ir.Graph) -> str:
    """A node that needs its own result: what is left when all that can be computed is."""
    left = list(graph)
    while True:
        waiting = {value for node in left for value in node.outputs}
        blocked = [node for node in left if any(value in waiting for value in node.inputs)]
        if len(blocked) == len(left):
            return label(left[0]) if left else "a node"
        left = blocked


def _check_weight(value: ir.Value) -> None:
    """The bytes are those that type and shape speak of."""
    if value.dtype == ir.DataType.STRING or value.const_value is None:
        return
    try:
        value.const_value.numpy()
    except (OSError, TypeError, ValueError) as error:
        raise _damaged(f"weight {value.name!r}: {error}") from error


def _check_count(node: ir.Node) -> None:
    """Onnx 1.22's inference ends the process when a Split has more outputs than it says."""
    said = node.attributes.get("num_outputs")
    if node.op_type == "Split" and said is not None and said.value != len(node.outputs):
        raise _damaged(f"{label(node)}: says num_outputs={said.value} and has {len(node.outputs)}")


def _exists(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.const_value is not None


def _damaged(message: str) -> SourceError:
    remedy = "the file is damaged; export the model again"
    return SourceError(message, remedy=remedy, code="corrupt_source")


class Admit(Pass):
    """Refuse what is no dataflow of tensors by known operators, of sane sizes."""

    requires = (NO_FUNCTIONS,)
    ensures = (NO_CONTROL_FLOW,)

    def call(self, model: ir.Model) -> PassResult:
        for port in model.graph.inputs:
            _check_type(port, f"{port.name!r}")
            _check_size(port, f"{port.name!r}")
        for node in model.graph:
            _check_kind(node, model.opset_imports.get(node.domain, 1))
            for value in (*node.inputs, *node.outputs):
                if value is not None:
                    _check_type(value, label(node))
            for value in node.outputs:
                _check_size(value, label(node))
        return PassResult(model, False)


def _check_type(value: ir.Value, who: str) -> None:
    """Only tensors of numbers and truth values."""
    kind = value.type
    if kind is not None and not isinstance(kind, ir.TensorType):
        raise SourceError(
            f"{who}: {type(kind).__name__} is not supported, only tensors are",
            remedy="export the model with tensors alone",
            code="unsupported_type",
        )
    if value.dtype == ir.DataType.STRING:
        raise SourceError(
            f"{who}: strings are not supported",
            remedy="export the model without them; text belongs into preprocessing",
            code="unsupported_type",
        )


def _check_size(value: ir.Value, who: str) -> None:
    """Nothing beyond 2 GiB, and no negative sizes."""
    sizes = static_shape(value)
    if sizes is None or value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
        return
    if any(size < 0 for size in sizes) or math.prod(sizes) * value.dtype.itemsize > LARGEST:
        raise SourceError(
            f"{who}: a tensor of shape {list(sizes)} is larger than 2 GiB or has a negative size",
            remedy="the file is damaged, or the model is too large for an edge device",
            code="absurd_shape",
        )


def _check_kind(node: ir.Node, version: int) -> None:
    if node.domain == "" and node.op_type in CONTROL:
        raise SourceError(
            f"{label(node)}: control flow is not supported",
            remedy="export the model without control flow",
            code="control_flow",
        )
    if node.domain == "" and node.op_type in RANDOM:
        raise SourceError(
            f"{label(node)}: it draws random numbers, so no two runs of the model give the same",
            remedy="export the model for inference, or feed the noise as an input",
            code="random_op",
        )
    if node.domain == "" and node.op_type in _STRINGS:
        raise SourceError(
            f"{label(node)}: strings are not supported",
            remedy="export the model without them; text belongs into preprocessing",
            code="unsupported_type",
        )
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


class FiniteWeights(Pass):
    """Refuse NaN in any constant, and infinities in weights; in masks and bounds those are meant."""

    def call(self, model: ir.Model) -> PassResult:
        for name, value in model.graph.initializers.items():
            if value.const_value is None or value.dtype is None or not value.dtype.is_floating_point():
                continue
            array = value.const_value.numpy()
            # One number many times over is looked at once.
            array = array.reshape(-1)[:1] if 0 in getattr(array, "strides", ()) else array
            wide = array if array.dtype.kind == "f" else array.astype(np.float32)
            weights = any(use.node.op_type in _WEIGHTED and use.idx > 0 for use in value.uses())
            if np.isnan(wide).any() or (weights and not np.isfinite(wide).all()):
                raise SourceError(
                    f"weight {name!r} holds NaN or infinity",
                    remedy="the training went wrong, or the file is damaged",
                    code="not_finite",
                )
        return PassResult(model, False)
