"""Computing nodes whose inputs are constants: onnxruntime first, onnx's reference evaluator else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

from edgekit_converters.hub.build import type_proto
from edgekit_converters.hub.nodes import Array
from edgekit_converters.onnx_session import REFUSALS

_NATIVE = "biufc"
# The reference evaluator is numpy code: whatever a node it does not understand makes numpy say.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    MemoryError,
)


def evaluate(nodes: Sequence[ir.Node], wanted: Sequence[ir.Value], opset: int) -> dict[ir.Value, Array]:
    """The values of `wanted`, as many as can be computed; `nodes` are in order and read constants only."""
    plain = all(_native(v) for node in nodes for v in (*node.inputs, *node.outputs) if v is not None)
    if plain:
        try:
            found = _session(nodes, wanted, opset)
            return dict(zip(wanted, found, strict=True))
        except REFUSALS:
            pass
    return _one_by_one(nodes, opset)


def _native(value: ir.Value) -> bool:
    try:
        return value.dtype is not None and np.dtype(value.dtype.numpy()).kind in _NATIVE
    except TypeError:
        return False


def _one_by_one(nodes: Sequence[ir.Node], opset: int) -> dict[ir.Value, Array]:
    known: dict[ir.Value, Array] = {}
    for node in nodes:
        given = {value: _value(value, known) for value in node.inputs if value is not None}
        if any(item is None for item in given.values()):
            continue
        outputs = [out for out in node.outputs if out.name]
        fed = {value.name or "": item for value, item in given.items() if item is not None}
        for run in (_run_session, _run_reference):
            try:
                made = run(_model([node], list(given), outputs, opset), fed)
            except (*REFUSALS, *_FAILURES):
                continue
            known.update(zip(outputs, made, strict=True))
            break
    return known


def _value(value: ir.Value, known: Mapping[ir.Value, Array]) -> Array | None:
    if value in known:
        return known[value]
    return None if value.const_value is None else np.asarray(value.const_value.numpy())


def _session(nodes: Sequence[ir.Node], wanted: Sequence[ir.Value], opset: int) -> list[Array]:
    made = {out for node in nodes for out in node.outputs}
    given = list(dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v not in made))
    fed = {v.name or "": np.asarray(v.const_value.numpy()) for v in given if v.const_value is not None}
    return _run_session(_model(nodes, given, wanted, opset), fed)


def _model(
    nodes: Iterable[ir.Node], given: Sequence[ir.Value], wanted: Sequence[ir.Value], opset: int
) -> onnx.ModelProto:
    graph = onnx.GraphProto(name="fold")
    graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
    for value in given:
        graph.input.append(onnx.ValueInfoProto(name=value.name, type=type_proto(value)))
    for value in wanted:
        graph.output.append(onnx.ValueInfoProto(name=value.name))
    imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


def _run_session(model: onnx.ModelProto, fed: Mapping[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, dict(fed))
    return [np.asarray(item) for item in found]


def _run_reference(model: onnx.ModelProto, fed: Mapping[str, Array]) -> list[Array]:
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(model).run(None, dict(fed))
    return [np.asarray(item) for item in found]
