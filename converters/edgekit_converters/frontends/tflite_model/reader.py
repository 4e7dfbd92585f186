"""The FlatBuffer as plain values, every index checked before anything relies on it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import SourceError

Array = NDArray[Any]
_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "INT4": np.int8,
}
_INTEGERS = ("int8", "uint8", "int16", "int32")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor: `free` tells that its first axis is the batch; `data` is None for a computed one.

    `scale` and `zero` are arrays along `axis` (length one: the whole tensor); None if not quantized.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    free: bool
    data: Array | None
    scale: Array | None = None
    zero: Array | None = None
    axis: int = 0


@dataclass(frozen=True, kw_only=True)
class Op:
    """An operation; -1 among the inputs is one that is left out. `options` is the schema's object or None."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True, kw_only=True)
class File:
    """The only subgraph of a file; ports map names to tensors."""

    tensors: Sequence[Stored]
    ops: Sequence[Op]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    signed: bool

    @property
    def quantized(self) -> bool:
        """Whether anything computed is an integer that stands for a real number."""
        return any(item.scale is not None and item.data is None for item in self.tensors)


def read(data: bytes, where: str) -> File:
    """The file in `data`.

    Raises:
        SourceError: damaged, or with several subgraphs (control flow), or types that are not supported.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
        return _file(model, schema, where)
    except (
        *(struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError),
        *(OverflowError, UnicodeDecodeError, MemoryError),
    ) as error:
        text = " ".join(str(error).split())[:200]
        raise SourceError(
            f"not a whole TFLite file: {type(error).__name__} {text}",
            where=where,
            remedy="the file is damaged; export or copy it again",
            code="corrupt_source",
        ) from error


def _file(model: Any, schema: Any, where: str) -> File:
    if len(model.subgraphs) != 1:
        raise SourceError(
            f"{len(model.subgraphs)} subgraphs: control flow is not supported",
            where=where,
            remedy="export the model without control flow",
            code="control_flow",
        )
    graph = model.subgraphs[0]
    kinds = {value: key for key, value in vars(schema.TensorType).items() if not key.startswith("_")}
    tensors = [_tensor(item, model.buffers, kinds, where) for item in graph.tensors]
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if not key.startswith("_")}
    codes = [
        names.get(max(item.builtinCode, item.deprecatedBuiltinCode), "CUSTOM") for item in model.operatorCodes
    ]
    ops = [_op(item, codes, len(tensors)) for item in graph.operators or []]
    if not ops:
        raise SourceError("the graph is empty", where=where, code="corrupt_source")
    inputs, outputs, signed = _ports(model, graph, tensors)
    return File(tensors=tensors, ops=ops, inputs=inputs, outputs=outputs, signed=signed)


def _op(item: Any, codes: Sequence[str], count: int) -> Op:
    inputs, outputs = _indices(item.inputs, count, -1), _indices(item.outputs, count, 0)
    if item.opcodeIndex < 0:
        raise IndexError("operator code")
    return Op(kind=codes[item.opcodeIndex], inputs=inputs, outputs=outputs, options=item.builtinOptions)


def _indices(given: Any, count: int, lowest: int) -> tuple[int, ...]:
    found = tuple(int(i) for i in (given if given is not None else ()))
    if any(not lowest <= i < count for i in found):
        raise IndexError("a tensor that is not there")
    return found


def _ports(model: Any, graph: Any, tensors: Sequence[Stored]) -> tuple[dict[str, int], dict[str, int], bool]:
    """Names of inputs and outputs, from the only signature if there is one, in the graph's order."""
    ends = [_indices(given, len(tensors), 0) for given in (graph.inputs, graph.outputs)]
    named: list[dict[int, str]] = [{}, {}]
    signatures = model.signatureDefs or []
    if len(signatures) == 1:
        for place, maps in enumerate((signatures[0].inputs or [], signatures[0].outputs or [])):
            named[place] = {int(item.tensorIndex): _text(item.name) for item in maps}
    found = []
    for indices, names in zip(ends, named, strict=True):
        ports = {names.get(i) or tensors[i].name or f"tensor_{i}": i for i in indices}
        if len(ports) != len(indices):
            ports = {f"{tensors[i].name}_{i}": i for i in indices}
        found.append(ports)
    return found[0], found[1], bool(signatures)


def _text(name: Any) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name or "")


def _tensor(item: Any, buffers: Sequence[Any], kinds: Mapping[int, str], where: str) -> Stored:
    kind, name = kinds[item.type], _text(item.name)
    if kind not in _DTYPES:
        raise SourceError(f"tensor {name!r} is {kind}", where=where, code="unsupported_type")
    if item.sparsity is not None:
        raise SourceError(f"tensor {name!r} is stored sparse", where=where, code="unsupported_type")
    shape = tuple(int(size) for size in (item.shape if item.shape is not None else ()))
    given = item.shapeSignature
    dtype = np.dtype(_DTYPES[kind])
    data = _data(buffers[item.buffer].data if item.buffer else None, kind, dtype, shape)
    if data is not None and dtype.kind == "f" and np.isnan(data).any():
        raise SourceError(f"weight {name!r} holds NaN", where=where, code="not_finite")
    scale, zero, axis = _quantization(item.quantization, str(dtype), shape)
    return Stored(
        name=name,
        dtype=dtype,
        shape=shape,
        free=given is not None and len(given) > 0 and int(given[0]) == -1,
        data=data,
        scale=scale,
        zero=zero,
        axis=axis,
    )


def _data(raw: Any, kind: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    if raw is None or len(raw) == 0:
        return None
    content = np.asarray(raw, np.uint8)
    if kind == "INT4":  # two a byte, the low half first
        halves = np.stack([content & 15, content >> 4], axis=-1).reshape(-1)[: int(np.prod(shape))]
        return ((halves.astype(np.int8) ^ 8) - 8).reshape(shape)
    return np.frombuffer(content.tobytes(), dtype).reshape(shape)


def _quantization(given: Any, dtype: str, shape: tuple[int, ...]) -> tuple[Array | None, Array | None, int]:
    if given is None or given.scale is None or len(given.scale) == 0 or dtype not in _INTEGERS:
        return None, None, 0
    scale = np.asarray(given.scale, np.float32)
    zero = np.asarray(given.zeroPoint if given.zeroPoint is not None else [0], np.int64)
    axis = int(given.quantizedDimension) if len(scale) > 1 else 0
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise ValueError("a scale that is no positive number")
    if len(scale) > 1 and (axis >= len(shape) or shape[axis] != len(scale)):
        raise ValueError("scales that do not fit their axis")
    return scale, np.broadcast_to(zero, scale.shape), axis
