"""The FlatBuffer file, written so that no weight is copied more than once.

FlatBuffers are built back to front in one growing buffer, which would copy every weight several
times. Here the tables are packed with empty weight vectors; the weights are then laid behind them and
each vector's offset is set to where its weight lies. Offsets only point forward, so the file is an
ordinary one that every runtime reads.

Specification: tensorflow/compiler/mlir/lite/schema/schema.fbs; flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower.opcodes import OPTIONS
from edgekit_converters.targets.tflite.lower.runtimes import runtime_of
from edgekit_converters.targets.tflite.lower.tensors import Quant, Shape

LIMIT = 2**31 - 1
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
_BUFFER_DATA_FIELD = 4  # vtable offset of Buffer.data

TYPES: dict[ir.DataType, int] = {
    ir.DataType.FLOAT: schema.TensorType.FLOAT32,
    ir.DataType.FLOAT16: schema.TensorType.FLOAT16,
    ir.DataType.DOUBLE: schema.TensorType.FLOAT64,
    ir.DataType.INT64: schema.TensorType.INT64,
    ir.DataType.INT32: schema.TensorType.INT32,
    ir.DataType.INT16: schema.TensorType.INT16,
    ir.DataType.INT8: schema.TensorType.INT8,
    ir.DataType.INT4: schema.TensorType.INT4,
    ir.DataType.UINT64: schema.TensorType.UINT64,
    ir.DataType.UINT32: schema.TensorType.UINT32,
    ir.DataType.UINT16: schema.TensorType.UINT16,
    ir.DataType.UINT8: schema.TensorType.UINT8,
    ir.DataType.BOOL: schema.TensorType.BOOL,
    ir.DataType.COMPLEX64: schema.TensorType.COMPLEX64,
}


_FLOATS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.FLOAT64)


@dataclass
class Graph:
    """The one subgraph under construction: tensors, their buffers, operators."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[np.ndarray | None] = field(default_factory=lambda: [None])
    operators: list[Any] = field(default_factory=list)
    opcodes: dict[tuple[int, int], int] = field(default_factory=dict)
    runtimes: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def add_tensor(
        self, name: str, shape: Shape, dtype: ir.DataType, quant: Quant | None, data: np.ndarray | None = None
    ) -> int:
        """A new tensor's index; with `data` it is a constant."""
        if dtype not in TYPES:
            raise Refusal(
                f"TFLite has no tensors of type {dtype.name} ({name})",
                remedy="use an onnx target for this model",
                code="unsupported_type",
            )
        tensor = schema.TensorT()
        tensor.name, tensor.type = self._unique(name).encode(), TYPES[dtype]
        tensor.shape = np.array([1 if size is None else size for size in shape], np.int32)
        if None in shape:
            tensor.shapeSignature = np.array([-1 if size is None else size for size in shape], np.int32)
        tensor.hasRank = not shape
        tensor.quantization = _quantization(quant)
        tensor.buffer = 0
        if data is not None:
            self.buffers.append(data)
            tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def rename(self, index: int, name: str) -> None:
        """Give a tensor a port's name; whoever has that name now gets another."""
        wanted = name.encode()
        for other in self.tensors:
            if other.name == wanted and other is not self.tensors[index]:
                other.name = self._unique(name).encode()
        self.tensors[index].name = wanted
        self._names.add(name)

    def _unique(self, name: str) -> str:
        unique, count = name, 0
        while unique in self._names:
            count += 1
            unique = f"{name}__{count}"
        self._names.add(unique)
        return unique

    def add_operator(
        self, op: str, version: int, inputs: Sequence[int], outputs: Sequence[int], fields: dict[str, Any]
    ) -> None:
        """Append an operator; `fields` are those of its options table."""
        code: int = getattr(schema.BuiltinOperator, op)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.opcodes.setdefault((code, version), len(self.opcodes))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array(outputs, np.int32)
        name = OPTIONS.get(op)
        if name is not None:
            table = getattr(schema, f"{name}T")()
            for key, value in fields.items():
                if not hasattr(table, key):
                    raise AttributeError(f"{name} has no field {key}")
                setattr(table, key, value)
            operator.builtinOptions = table
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        elif fields:
            raise AttributeError(f"{op} has no options, but {sorted(fields)} were given")
        self.operators.append(operator)
        self.counts[op] = self.counts.get(op, 0) + 1
        self.runtimes.add(runtime_of(op, version))

    def mark(self) -> tuple[Any, ...]:
        """Where the graph stands, for `back_to`."""
        lengths = (len(self.tensors), len(self.buffers), len(self.operators))
        return *lengths, dict(self.opcodes), set(self.runtimes), dict(self.counts), set(self._names)

    def back_to(self, mark: tuple[Any, ...]) -> None:
        """Forget everything since `mark`."""
        tensors, buffers, operators, self.opcodes, self.runtimes, self.counts, self._names = mark
        del self.tensors[tensors:], self.buffers[buffers:], self.operators[operators:]

    def integer_operators(self) -> int:
        """How many operators neither read nor write floats."""
        return sum(not self.touches_floats(i, i + 1) for i in range(len(self.operators)))

    def constants_of(self, dtype: ir.DataType) -> int:
        """How many constants have this type."""
        return sum(bool(item.buffer) and item.type == TYPES[dtype] for item in self.tensors)

    def touches_floats(self, first: int, end: int | None = None) -> bool:
        """Whether an operator from number `first` on reads or writes floats."""
        used = {i for op in self.operators[first:end] for i in (*op.inputs, *op.outputs) if i >= 0}
        return any(self.tensors[i].type in _FLOATS for i in used)

    def min_runtime(self) -> str:
        """The oldest runtime that has every op in the version used."""
        return max(self.runtimes or {"1.5.0"}, key=lambda text: [int(part) for part in text.split(".")])


@dataclass(frozen=True)
class Ports:
    """Names and tensor indices of the model's inputs and outputs."""

    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


def type_name(dtype: ir.DataType) -> str:
    """The schema's name of a type."""
    names = {value: name for name, value in vars(schema.TensorType).items()}
    return str(names[TYPES[dtype]])


def check_size(graph: Graph) -> None:
    """Whether a file can hold the graph.

    Raises:
        Refusal: it would be larger than a FlatBuffer can be (2 GB).
    """
    size = sum(data.nbytes for data in graph.buffers if data is not None)
    if size > LIMIT - 2**24:
        raise Refusal(
            f"the weights take {size / 2**30:.1f} GiB; a TFLite file holds less than 2 GiB",
            remedy="use --precision int8, fp16 or int4, split the model, or use an onnx target",
            code="too_large",
        )


def serialise(graph: Graph, ports: Ports) -> Iterator[bytes | memoryview]:
    """The file in pieces, each weight brought into its order only when its turn comes."""
    return _laid_out(_tables(graph, ports), graph.buffers)


def _tables(graph: Graph, ports: Ports) -> bytearray:
    model = schema.ModelT()
    model.version, model.description = 3, b"edgekit"
    model.operatorCodes = [_opcode(code, version) for code, version in graph.opcodes]
    model.buffers = [_buffer(data) for data in graph.buffers]
    subgraph = schema.SubGraphT()
    subgraph.name = b"main"
    subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
    subgraph.inputs = np.array([index for _, index in ports.inputs], np.int32)
    subgraph.outputs = np.array([index for _, index in ports.outputs], np.int32)
    model.subgraphs = [subgraph]
    model.signatureDefs = [_signature(ports)]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytearray(builder.Output())


def _laid_out(tables: bytearray, buffers: Sequence[np.ndarray | None]) -> Iterator[bytes | memoryview]:
    """The file in pieces: tables with their vectors pointed at what follows, then the weights."""
    model = schema.Model.GetRootAs(tables, 0)
    position = len(tables)
    paddings = []
    for index, data in enumerate(buffers):
        if data is None or data.nbytes == 0:
            continue
        table = model.Buffers(index)._tab  # the only way to a field's place
        place = table.Pos + table.Offset(_BUFFER_DATA_FIELD)
        # The vector is a 4-byte length followed by the data, which shall be aligned.
        padding = -(position + 4) % _ALIGNMENT
        vector = position + padding
        struct.pack_into("<I", tables, place, vector - place)
        paddings.append((bytes(padding), data))
        position = vector + 4 + data.nbytes
    yield bytes(tables)
    for filler, data in paddings:
        yield filler + struct.pack("<I", data.nbytes)
        yield np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    yield bytes(-position % _ALIGNMENT)


def _buffer(data: np.ndarray | None) -> Any:
    buffer = schema.BufferT()
    if data is not None:
        buffer.data = np.zeros(0, np.uint8)
    return buffer


def _opcode(code: int, version: int) -> Any:
    entry = schema.OperatorCodeT()
    # Runtimes before 2.4 read only the 8-bit field; newer ones take the larger of the two.
    entry.deprecatedBuiltinCode = min(code, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    entry.builtinCode, entry.version = code, version
    return entry


def _signature(ports: Ports) -> Any:
    definition = schema.SignatureDefT()
    definition.signatureKey, definition.subgraphIndex = b"serving_default", 0
    definition.inputs = [_port(name, index) for name, index in ports.inputs]
    definition.outputs = [_port(name, index) for name, index in ports.outputs]
    return definition


def _port(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def _quantization(quant: Quant | None) -> Any:
    if quant is None:
        return None
    table = schema.QuantizationParametersT()
    table.scale = np.array(quant.scale, np.float32)
    table.zeroPoint = np.array(quant.zero_point, np.int64)
    table.quantizedDimension = quant.axis
    return table
