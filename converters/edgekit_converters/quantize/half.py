"""What is not quantized in float16, explicitly: casts at the boundary, float16 constants and scales.

For builders that type every tensor as the graph does (TensorRT, strongly typed). Inputs and outputs
keep float32. A QuantizeLinear or DequantizeLinear whose scale would not be a normal float16 number,
and an op whose values do not fit float16, stay float32 between casts of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize.graphs import clone, constant, remove_unused, store
from edgekit_converters.quantize.roles import array

_LARGEST = 65504 / 2
_SMALLEST = 2.0**-14
_F32, _F16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
_PAIRS = ("QuantizeLinear", "DequantizeLinear")
_FLOAT_ONLY = frozenset({"Resize", "Cast", "LayerNormalization"})
"""Ops with float32 parameters, sums of squares, or a type of their own: not worth the risk."""


def halved(model: ir.Model, ranges: Mapping[str, tuple[float, float]]) -> tuple[ir.Model, dict[str, Any]]:
    """A copy of a (QDQ) graph in float16, and which ops stayed float32.

    `ranges`: (low, high) by tensor name; unknown tensors are taken to fit.
    """
    copy = clone(model)
    graph = copy.graph
    kept = {node for node in graph if _keeps_float32(node, ranges)}
    for node in list(graph):
        if node not in kept:
            _halve_constants(graph, node)
    floats = {value for node in graph for value in node.outputs if value.dtype == _F32}
    halves = {value for value in floats if value.producer() not in kept}
    for value in halves:
        value.type = ir.TensorType(_F16)
    _join(graph, kept, halves)
    _restore_outputs(graph, halves)
    remove_unused(graph)
    left = [str(node.outputs[0].name) for node in graph if node in kept and node.op_type not in _PAIRS]
    return copy, {"float32_ops": left}


def _keeps_float32(node: ir.Node, ranges: Mapping[str, tuple[float, float]]) -> bool:
    if node.op_type in _PAIRS:
        scale = node.inputs[1]
        if array(scale) is None:
            return True
        return bool((np.abs(constant(scale)) < _SMALLEST).any())
    if node.op_type in _FLOAT_ONLY:
        return True
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        found = array(value)
        if found is not None and value.dtype == _F32:
            data = constant(value)
            if data.size and float(np.abs(data).max()) > _LARGEST:
                return True
        low, high = ranges.get(str(value.name), (0.0, 0.0))
        if max(-low, high) > _LARGEST:
            return True
    return False


def _halve_constants(graph: ir.Graph, node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        if value is None or array(value) is None or value.dtype != _F32:
            continue
        name = f"{value.name}_half"
        known = graph.initializers.get(name)
        half = known if known is not None else store(graph, name, constant(value).astype(np.float16))
        node.replace_input_with(index, half)


def _join(graph: ir.Graph, kept: set[ir.Node], halves: set[ir.Value]) -> None:
    """Casts where float32 and float16 meet, one for each tensor and type."""
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in list(graph):
        for index, value in enumerate(node.inputs):
            if value is None or array(value) is not None:
                continue
            has = _F16 if value in halves else value.dtype
            wants = _F32 if node in kept else _F16
            if has not in (_F32, _F16) or has == wants:
                continue
            if (value, wants) not in casts:
                casts[value, wants] = _cast(graph, value, wants, f"{value.name}_as_{wants.name.lower()}")
            node.replace_input_with(index, casts[value, wants])


def _restore_outputs(graph: ir.Graph, halves: set[ir.Value]) -> None:
    for index, value in enumerate(graph.outputs):
        if value in halves:
            name = value.name
            value.name = f"{name}_half"
            graph.outputs[index] = _cast(graph, value, _F32, str(name))


def _cast(graph: ir.Graph, value: ir.Value, kind: ir.DataType, name: str) -> ir.Value:
    node = ir.Node("", "Cast", [value], {"to": ir.AttrInt64("to", int(kind))}, name=name)
    result = node.outputs[0]
    result.name, result.type, result.shape = name, ir.TensorType(kind), value.shape
    maker = value.producer()
    if maker is None:
        graph.insert_before(graph[0], [node])
    else:
        maker.append([node])
    return result
