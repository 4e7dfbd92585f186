"""The hub: the canonical float ONNX graph from which calibration and lowerings start.

1. inputs and outputs are renamed to the contract's names;
2. initializers are no inputs, the batch is the symbol ``N`` (or what the graph demands);
3. shapes are inferred, constants folded, BatchNorm fused (onnxruntime's basic level);
4. node names are unique and derived from the order, so that the bytes do not depend on the process.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import shape_inference
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edgekit.errors import SourceError

# onnxruntime's errors have no common root below Exception.
_REFUSALS = (
    RuntimeError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def canonicalise(
    raw: Path, out: Path, renames: Mapping[str, str], shapes: Mapping[str, Sequence[int]]
) -> Mapping[str, Any]:
    """Write the canonical form of `raw`.

    Args:
        raw: an ONNX file.
        out: where to write.
        renames: the source's port names in the graph's order → the contract's names; inputs, then outputs.
        shapes: by the contract's input names, -1 for the batch; pins axes that the source leaves free.

    Returns:
        Facts: opset, node count, op types, and whether the batch is free.

    Raises:
        SourceError: onnxruntime does not take the graph.
    """
    model = onnx.load(raw)
    _drop_initializer_inputs(model)
    _rename_ports(model.graph, list(renames.values()))
    _pin(model.graph, shapes)
    free = _free_batch(model.graph)
    result = _folded(model, out.with_suffix(".folded.onnx"), where=str(raw))
    _name_nodes(result.graph)
    result.producer_name, result.producer_version, result.doc_string = "edgekit", "", ""
    del result.metadata_props[:]
    _keep_domains(result)
    onnx.checker.check_model(result)
    out.write_bytes(result.SerializeToString(deterministic=True))
    ops = [node.op_type for node in result.graph.node]
    opset = next(item.version for item in result.opset_import if item.domain == "")
    return {"opset": opset, "nodes": len(ops), "ops": sorted(set(ops)), "free_batch": free}


def with_batch_one(hub: Path) -> onnx.ModelProto:
    """The hub with its batch fixed at one and folded again: computed shapes become constants."""
    model = onnx.load(hub)
    for item in (*model.graph.input, *model.graph.output):
        dims = item.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory() as folder:
        folded = _folded(model, Path(folder) / "folded.onnx", where=str(hub))
    _name_nodes(folded.graph)
    return folded


def _folded(model: onnx.ModelProto, place: Path, *, where: str) -> onnx.ModelProto:
    """`model` after onnxruntime's basic level, with shapes.

    Raises:
        SourceError: onnxruntime does not take the graph.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(place)
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        if shutil.disk_usage(place.parent).free < model.ByteSize():
            # onnxruntime calls a full disk a graph that it cannot serialise.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
        text = " ".join(str(error).split())[:300]
        raise SourceError(f"onnxruntime does not take the graph: {text}", where=where) from error
    result = shape_inference.infer_shapes(onnx.load(place))
    place.unlink()
    return result


def _drop_initializer_inputs(model: onnx.ModelProto) -> None:
    initial = {item.name for item in model.graph.initializer}
    kept = [item for item in model.graph.input if item.name not in initial]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    # Initializers that are no inputs exist since IR version 4.
    model.ir_version = max(model.ir_version, 8)


def _rename_ports(graph: onnx.GraphProto, names: list[str]) -> None:
    """Give inputs and outputs, in this order, the contract's names; a name in use inside moves away."""
    ports = [item.name for item in graph.input] + [item.name for item in graph.output]
    mapping = dict(zip(ports, names, strict=True))
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    used |= {item.name for item in graph.initializer}
    for new in names:
        if new in used and new not in mapping:
            mapping[new] = f"{new}__inner"
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = mapping.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = mapping.get(name, name)
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = mapping.get(item.name, item.name)


def _pin(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Write the contract's sizes into the inputs, and let the outputs' be inferred again."""
    for item in graph.input:
        dims = item.type.tensor_type.shape.dim
        for dim, size in zip(list(dims)[1:], list(shapes[item.name])[1:], strict=True):
            dim.dim_value = size


def _free_batch(graph: onnx.GraphProto) -> bool:
    """Name free batch axes ``N``; False when the graph fixes the batch."""
    free = True
    for item in (*graph.input, *graph.output):
        dims = item.type.tensor_type.shape.dim
        if not dims:
            continue
        if dims[0].HasField("dim_value"):
            free = free and dims[0].dim_value != 1
        else:
            dims[0].dim_param = "N"
    return free


def _name_nodes(graph: onnx.GraphProto) -> None:
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        node.doc_string = ""


def _keep_domains(model: onnx.ModelProto) -> None:
    used = {node.domain for node in model.graph.node}
    kept = [item for item in model.opset_import if item.domain in used or item.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)
