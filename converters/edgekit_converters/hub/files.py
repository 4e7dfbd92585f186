"""The hub on disk, for the engine: the contract's names, the batch symbol ``N``, bytes that do not change.

1. inputs and outputs are renamed to the contract's names;
2. the batch is the symbol ``N`` (or one, where the source says so), other free axes are pinned;
3. the canonical form (`pipeline`);
4. serialised deterministically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit_converters.hub.passes.sizes import LARGEST
from edgekit_converters.hub.pipeline import canonical


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
        Facts: opset, node count, op types, folded nodes, and whether the batch is free.

    Raises:
        SourceError: the graph is not one the hub takes; the node is named.
    """
    model = onnx.load(raw)
    _drop_initializer_inputs(model)
    _rename_ports(model.graph, list(renames.values()))
    _pin(model.graph, shapes)
    _release_batch(model.graph)
    free = _free_batch(model.graph)
    found = canonical(model, where=str(raw))
    _check_size(found.model, raw)
    out.write_bytes(to_proto(found.model).SerializeToString(deterministic=True))
    return {**found.facts, "free_batch": free}


def _check_size(model: ir.Model, raw: Path) -> None:
    """One message, and so one ONNX file and one TFLite file, holds 2 GiB."""
    weights = sum(
        v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None
    )
    if weights > LARGEST:
        raise SourceError(
            f"the weights take {weights / 2**30:.1f} GiB, more than the 2 GiB a file of any target holds",
            where=str(raw),
            remedy="export a smaller model, or its weights in half precision",
            code="too_large",
        )


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """`model` as it goes to disk: nothing in it says where or when it was made."""
    proto: onnx.ModelProto = ir.serde.serialize_model(model)
    proto.producer_name, proto.producer_version, proto.doc_string = "edgekit", "", ""
    proto.domain, proto.model_version = "", 0
    del proto.metadata_props[:]
    used = {node.domain for node in proto.graph.node} | {""}
    imports = [item for item in proto.opset_import if item.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(sorted(imports, key=lambda item: item.domain))
    return proto


def with_batch_one(hub: Path) -> onnx.ModelProto:
    """The hub with its batch fixed at one and folded again: computed shapes become constants."""
    model = onnx.load(hub)
    for item in (*model.graph.input, *model.graph.output):
        dims = item.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    return to_proto(canonical(model, where=str(hub)).model)


def _drop_initializer_inputs(model: onnx.ModelProto) -> None:
    initial = {item.name for item in model.graph.initializer}
    kept = [item for item in model.graph.input if item.name not in initial]
    del model.graph.input[:]
    model.graph.input.extend(kept)


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


def _release_batch(graph: onnx.GraphProto) -> None:
    """Free a batch fixed above one: the package says that any is taken, and devices run single samples.

    Where the graph's inside needs its number, what it computes shows that: the engine compares.
    """
    sizes = {item.type.tensor_type.shape.dim[0].dim_value for item in graph.input}
    if len(sizes) > 1 or sizes <= {0, 1}:
        return
    for item in (*graph.input, *graph.output):
        dims = item.type.tensor_type.shape.dim
        if dims and dims[0].dim_value in sizes:
            dims[0].ClearField("dim_value")
    del graph.value_info[:]


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
