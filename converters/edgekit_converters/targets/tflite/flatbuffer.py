"""Reading and finishing a TFLite FlatBuffer with the schema that LiteRT ships; no TensorFlow.

Specification: tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from edgekit.package import Quantization, Tensor

_IDENTIFIER = b"TFL3"
_NAMES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_OPS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a file holds: ports by name as (dtype, quantization) and counted facts."""

    inputs: Mapping[str, Quantization | None]
    outputs: Mapping[str, Quantization | None]
    facts: Mapping[str, Any]


def finish(data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Give ports the contract's names, write the signature ``serving_default``, drop the rest.

    The converter's metadata and description name versions, which stand in the manifest instead.
    """
    model = schema.ModelT.InitFromPackedBuf(data)
    graph = model.subgraphs[0]
    taken = {*inputs, *outputs}
    for index, tensor in enumerate(graph.tensors):
        if _text(tensor.name) in taken:
            tensor.name = f"inner_{index}".encode()
    definition = schema.SignatureDefT()
    definition.signatureKey = b"serving_default"
    definition.subgraphIndex = 0
    definition.inputs = _ports(graph, graph.inputs, inputs)
    definition.outputs = _ports(graph, graph.outputs, outputs)
    model.signatureDefs = [definition]
    model.metadata = [item for item in model.metadata or [] if _text(item.name) == "min_runtime_version"]
    model.description = b"edgekit"
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def inspect(data: bytes) -> Inspection:
    """Count what is in the file."""
    model = schema.ModelT.InitFromPackedBuf(data)
    graph = model.subgraphs[0]
    constant = [t for t in graph.tensors if _is_constant(model, t)]
    weights = Counter(_NAMES[t.type] for t in constant)
    kinds = Counter(_op_name(model, op) for op in graph.operators)
    integer = sum(1 for op in graph.operators if _is_integer(graph, op))
    facts = {
        "ops": dict(sorted(kinds.items())),
        "op_count": len(graph.operators),
        "int8_op_ratio": round(integer / max(1, len(graph.operators)), 3),
        "int8_weights": weights["INT8"],
        "fp16_weights": weights["FLOAT16"],
        "input_types": [_NAMES[graph.tensors[i].type] for i in graph.inputs],
        "output_types": [_NAMES[graph.tensors[i].type] for i in graph.outputs],
    }
    return Inspection(
        inputs={_text(graph.tensors[i].name): _quantization(graph.tensors[i]) for i in graph.inputs},
        outputs={_text(graph.tensors[i].name): _quantization(graph.tensors[i]) for i in graph.outputs},
        facts=facts,
    )


def bind(port: Tensor, quantization: Quantization | None) -> Tensor:
    """The contract's tensor with the file's quantization."""
    return replace(port, quantization=quantization)


def _ports(graph: Any, indices: Sequence[int], names: Sequence[str]) -> list[Any]:
    found = []
    for index, name in zip(indices, names, strict=True):
        graph.tensors[index].name = name.encode()
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), int(index)
        found.append(entry)
    return found


def _quantization(tensor: Any) -> Quantization | None:
    details = tensor.quantization
    if tensor.type != schema.TensorType.INT8 or details is None or details.scale is None:
        return None
    return Quantization(scale=float(details.scale[0]), zero_point=int(details.zeroPoint[0]))


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _is_integer(graph: Any, op: Any) -> bool:
    kinds = {graph.tensors[i].type for i in op.inputs if i >= 0} | {graph.tensors[i].type for i in op.outputs}
    return schema.TensorType.FLOAT32 not in kinds


def _op_name(model: Any, op: Any) -> str:
    code = model.operatorCodes[op.opcodeIndex]
    name: str = _OPS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
    return name


def _text(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else (name or "")
