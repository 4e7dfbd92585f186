"""What a TFLite file asks of TFLM, read from the file: operators, ports, and what TFLM never takes.

The rules file says which operators there are and what is refused besides (`edgekit.rules`). What only loading
shows (a type that one kernel lacks) TFLM says itself, see `arena`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgekit.rules import Rules
from edgekit_converters.errors import Refusal

_OPS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_FLOAT, _HALF = schema.TensorType.FLOAT32, schema.TensorType.FLOAT16
_NARROW = (schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT4)
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What matters to TFLM.

    `operators`: all of them, in the order of their first use; `inputs` and `outputs`: positions by tensor
    name; `stateful`: whether tensors last from one inference to the next; `hybrid`: the first operator with
    float activations and integer weights; `half`: whether constants are float16; `batch`: the samples that
    the inputs take at once; `empty`: the first operator with a tensor that has no elements.
    """

    operators: tuple[str, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    stateful: bool
    hybrid: str | None
    half: bool
    batch: int
    empty: str | None = None


def read(data: bytes) -> Content:
    """Read a file; other subgraphs than the first count for their operators only."""
    model = schema.ModelT.InitFromPackedBuf(data)
    graph = model.subgraphs[0]
    constant = {index for index, item in enumerate(graph.tensors) if _filled(model, item)}
    moving = {int(i) for i in graph.inputs} | {int(i) for op in graph.operators for i in op.outputs}
    named = [(_name(model, op), op) for op in graph.operators]
    return Content(
        operators=tuple(dict.fromkeys(_name(model, op) for part in model.subgraphs for op in part.operators)),
        inputs={_text(graph.tensors[index].name): place for place, index in enumerate(graph.inputs)},
        outputs={_text(graph.tensors[index].name): place for place, index in enumerate(graph.outputs)},
        stateful=any(item.isVariable for item in graph.tensors),
        hybrid=next((name for name, op in named if _hybrid(graph, op, name, constant)), None),
        half=any(graph.tensors[index].type == _HALF for index in constant),
        empty=next((name for name, op in named if _no_elements(graph, op, moving)), None),
        batch=max((_leading(graph.tensors[index]) for index in graph.inputs), default=1),
    )


def require(found: Content, rules: Rules) -> None:
    """Whether TFLM can take such a file at all.

    Raises:
        Refusal: hybrid, float16 weights, or an operator that the rules do not list.
    """
    if found.hybrid is not None:
        raise _limited(rules, "dynamic", f"{found.hybrid} has float activations and integer weights")
    if found.half:
        raise _limited(rules, "fp16", "weights are float16")
    if found.batch > 1:
        raise Refusal(
            f"the file takes {found.batch} samples at once, and TFLite Micro changes no shape",
            remedy="give the float model: its batch becomes one",
            code="fixed_batch",
        )
    if found.empty is not None:
        raise Refusal(
            f"{found.empty} has a tensor without elements, which TFLite Micro's kernels do not count with",
            remedy="leave that part out of the model",
            code="unsupported_attribute",
        )
    known = {name for entry in rules.allow for name in entry.ops}
    missing = [name for name in found.operators if name not in known]
    if missing:
        raise Refusal(
            f"TFLite Micro has no {', '.join(missing)}",
            remedy="use another target for this model, or leave these operators to the program around it",
            code="unsupported_op",
        )


def _limited(rules: Rules, name: str, what: str) -> Refusal:
    limit = rules.limit(name)
    assert limit is not None, f"{rules.name} has no limit {name!r}"
    return Refusal(f"{what}: {limit.detail}", remedy=limit.remedy, code=limit.reason_code)


def _hybrid(graph: Any, op: Any, name: str, constant: set[int]) -> bool:
    if name not in _WEIGHTED:
        return False
    inputs = [int(index) for index in op.inputs if index >= 0]
    floats = any(graph.tensors[index].type == _FLOAT and index not in constant for index in inputs)
    return floats and any(graph.tensors[index].type in _NARROW and index in constant for index in inputs)


def _no_elements(graph: Any, op: Any, moving: set[int]) -> bool:
    """Constants do not count: an empty one says the shape of a single number."""
    used = [graph.tensors[int(index)] for index in (*op.inputs, *op.outputs) if int(index) in moving]
    return any(item.shape is not None and 0 in item.shape for item in used)


def _leading(tensor: Any) -> int:
    return 1 if tensor.shape is None or not len(tensor.shape) else int(tensor.shape[0])


def _filled(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _name(model: Any, op: Any) -> str:
    code = model.operatorCodes[op.opcodeIndex]
    if code.customCode:
        return _text(code.customCode)
    name: str = _OPS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
    return name


def _text(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else (name or "")
