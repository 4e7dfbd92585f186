"""ONNX-ML nodes (``ai.onnx.ml``) rewritten to plain ONNX ops: one op family a file.

`rewrite_ml` serves every source that ends in ONNX-ML: ONNX files, scikit-learn, whatever skl2onnx and
onnxmltools write. Maps (`ZipMap`) become the tensor in them; strings are refused with the node named.
Outputs that are class labels go behind those that are scores: the first output is the one judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
from onnx import helper, shape_inference

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Emitter
from edgekit_converters.frontends.ml_ops import (
    columns,
    distances,
    linear,
    svm,
    tables,
    tree_ensemble,
    tree_ensemble_5,
)
from edgekit_converters.frontends.ml_ops.base import MlNode
from edgekit_converters.frontends.ml_ops.zip_map import without_zip_maps

ML = "ai.onnx.ml"
_OLDEST = 11
_NEWER = 13
_SMALL = 1024
_SAME_SINCE_7 = {
    *("Abs", "Add", "Cast", "Concat", "Div", "Exp", "Flatten", "Gather", "Identity", "Log", "MatMul", "Max"),
    *("Min", "Mul", "Neg", "Not", "Reshape", "Sigmoid", "Sign", "Sqrt", "Sub", "Sum", "Tanh", "Transpose"),
}
_FOREIGN = {("com.microsoft", "CDist")}
_CLASSIFIERS = ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")
_REWRITES: Mapping[str, Callable[[MlNode], list[str]]] = {
    **columns.REWRITES,
    **distances.REWRITES,
    **linear.REWRITES,
    **svm.REWRITES,
    **tables.REWRITES,
    **tree_ensemble.REWRITES,
    **tree_ensemble_5.REWRITES,
}


def has_ml(model: onnx.ModelProto) -> bool:
    """Whether `rewrite_ml` has anything to do."""
    return any(_concerns(node) for node in model.graph.node)


def rewrite_ml(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without ONNX-ML ops (a copy; `model` itself if it has none).

    Raises:
        SourceError: an op, attribute or type that has no plain form, with the node named.
    """
    if not has_ml(model):
        return model
    found = onnx.ModelProto()
    found.CopyFrom(without_zip_maps(model))
    opset = _raised(found)
    constants = {item.name: item for item in found.graph.initializer}
    e = Emitter("ml__", opset=opset)
    done: list[onnx.NodeProto] = []
    for node in found.graph.node:
        if not _concerns(node):
            done.append(node)
            continue
        # Types again after every rewriting: the next node may take what this one gives.
        types = _types(found, [*done, *e.nodes], e.weights)
        handler = _REWRITES.get(node.op_type)
        n = MlNode(node, e, types, constants)
        if handler is None:
            raise n.refusal("has no plain form here")
        results = handler(n)
        for name, result in zip(node.output, results, strict=False):
            if name:
                e.op("Identity", result, out=name)
        done += e.nodes
        e.nodes.clear()
    return _finished(found, done, e)


def _raised(model: onnx.ModelProto) -> int:
    """The opset of the plain nodes, brought to `_NEWER` where it is older than our ops need.

    Raises:
        SourceError: a plain node means something else there.
    """
    entry = next((item for item in model.opset_import if item.domain in ("", "ai.onnx")), None)
    if entry is None:
        entry = model.opset_import.add()
        entry.domain, entry.version = "", 1
    plain = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}
    if entry.version >= _OLDEST:
        return int(entry.version)
    if plain and (entry.version < 7 or not plain <= _SAME_SINCE_7):
        raise SourceError(
            f"ONNX-ML ops beside opset {entry.version}; {_OLDEST} or newer is needed",
            remedy="export the model again with a newer target_opset",
            code="unsupported_opset",
        )
    entry.version = _NEWER
    model.ir_version = max(model.ir_version, 8)
    return _NEWER


def _concerns(node: onnx.NodeProto) -> bool:
    return node.domain == ML or (node.domain, node.op_type) in _FOREIGN


def _types(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]
) -> dict[str, onnx.TypeProto]:
    """Types of all values that `nodes` give, by inference over the plain part so far."""
    tensors = [*model.graph.initializer, *weights]
    small = [item for item in tensors if item.ByteSize() < _SMALL]
    large = [helper.make_tensor_value_info(item.name, item.data_type, item.dims) for item in tensors]
    inputs = [*model.graph.input, *(v for v, t in zip(large, tensors, strict=True) if t.ByteSize() >= _SMALL)]
    graph = helper.make_graph(nodes, "so_far", inputs, [], small)
    part = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    try:
        graph = shape_inference.infer_shapes(part, data_prop=True).graph
    except (RuntimeError, ValueError, shape_inference.InferenceError):
        graph = part.graph
    found = {item.name: item.type for item in (*graph.input, *graph.value_info)}
    for item in (*model.graph.value_info, *model.graph.output):
        found.setdefault(item.name, item.type)
    for tensor in tensors:
        found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    return found


def _finished(model: onnx.ModelProto, nodes: list[onnx.NodeProto], e: Emitter) -> onnx.ModelProto:
    labels = {node.output[0] for node in model.graph.node if node.op_type in _CLASSIFIERS}
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(e.weights)
    del model.graph.value_info[:]
    kept = [item for item in model.opset_import if item.domain in {node.domain for node in nodes} | {""}]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    for port in model.graph.output:
        if port.name in labels and port.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            port.type.tensor_type.elem_type = onnx.TensorProto.INT64
    labels_last(model)
    return model


def labels_last(model: onnx.ModelProto) -> None:
    """Put outputs that are whole numbers behind those that are not, in place."""
    ports = list(model.graph.output)
    whole = [
        p for p in ports if p.type.tensor_type.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    ]
    rest = [p for p in ports if p not in whole]
    del model.graph.output[:]
    model.graph.output.extend([*rest, *whole])
