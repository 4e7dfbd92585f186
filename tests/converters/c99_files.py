"""TFLite files of one operation, and what the tflite-micro wheel says to them: the truth for our C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.converters.graphs import Array

Scale = float | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class T:
    """A tensor; `data` makes it a constant, several scales go along `axis`."""

    shape: tuple[int, ...]
    dtype: Any = np.int8
    scale: Scale | None = 0.05
    zero: int = 0
    axis: int = 0
    data: Any = None


def file_of(
    kind: str, inputs: Sequence[T], outputs: Sequence[T], options: Mapping[str, Any] | None = None
) -> bytes:
    """A model of one operation; its free inputs are the model's."""
    return files_of([(kind, range(len(inputs)), options)], inputs, outputs)


def files_of(
    steps: Sequence[tuple[str, Sequence[int], Mapping[str, Any] | None]],
    inputs: Sequence[T],
    outputs: Sequence[T],
) -> bytes:
    """A chain: step n takes `inputs` by their number (or, -1 and below, the outputs of steps before: -1 is
    the first step's) and gives output n."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph.tensors = [_tensor(model, item, f"t{n}") for n, item in enumerate((*inputs, *outputs))]
    graph.operators, model.operatorCodes, first = [], [], len(inputs)
    many = len(outputs) - len(steps) + 1  # outputs of a single step
    for number, (kind, places, options) in enumerate(steps):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 2 if kind not in ("SPLIT", "PADV2", "SUB", "LEAKY_RELU") else 1
        model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = number
        op.inputs = [place if place >= 0 else first - 1 - place for place in places]
        op.outputs = [first + number + extra for extra in range(many)]
        _options(op, kind, options or {})
        graph.operators.append(op)
    graph.inputs = [n for n, item in enumerate(inputs) if item.data is None]
    graph.outputs = [first + len(steps) - 1 + extra for extra in range(many)]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


_NAMES = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "SOFTMAX": "SoftmaxOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "CONCATENATION": "ConcatenationOptions",
    "MEAN": "ReducerOptions",
    "SPLIT": "SplitOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
}


def _options(op: Any, kind: str, values: Mapping[str, Any]) -> None:
    name = _NAMES.get(kind)
    if name is None:
        return
    op.builtinOptionsType = getattr(schema.BuiltinOptions, name)
    op.builtinOptions = getattr(schema, f"{name}T")()
    for key, value in values.items():
        assert hasattr(op.builtinOptions, key), key
        setattr(op.builtinOptions, key, value)


def _tensor(model: Any, item: T, name: str) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape = name.encode(), list(item.shape)
    types = {"int8": "INT8", "uint8": "UINT8", "int32": "INT32", "float32": "FLOAT32", "int16": "INT16"}
    tensor.type = getattr(schema.TensorType, types[np.dtype(item.dtype).name])
    if item.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(item.data, item.dtype).tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    if item.scale is not None:
        scales = np.atleast_1d(np.asarray(item.scale, np.float32))
        details = schema.QuantizationParametersT()
        details.scale, details.zeroPoint = scales, np.full(len(scales), item.zero, np.int64)
        details.quantizedDimension = item.axis
        tensor.quantization = details
    return tensor


def micro(data: bytes, samples: Sequence[Sequence[Array]], outputs: int = 1) -> list[list[Array]]:
    """The wheel's outputs for each sample (its inputs in order)."""
    from tflite_micro import runtime

    machine = runtime.Interpreter.from_bytes(data, arena_size=8_000_000)
    found = []
    for sample in samples:
        for place, values in enumerate(sample):
            machine.set_input(values, place)
        machine.invoke()
        found.append([np.array(machine.get_output(place)) for place in range(outputs)])
    return found
