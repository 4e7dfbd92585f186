"""For the tests of the TFLM target: jobs out of graphs and files, and single operators out of a file."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from benchmarks.quantization_inputs import MODELS
from edgekit.package import Tensor
from edgekit_converters import frontends, hub
from edgekit_converters.engine.pool import Pool
from edgekit_converters.npz import save_arrays
from edgekit_converters.quantize.calibration import calibrate
from edgekit_converters.source import recognise
from edgekit_converters.values import Job, Source
from tests.converters.quant_models import samples, stored

BUILTIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
REFERENCE = OpResolverType.BUILTIN_REF
_CODES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def job_of(model: ir.Model, folder: Path, precision: str = "int8", **options: Any) -> Job:
    """A job for a canonical graph with an input ``x``, calibrated on `quant_models.samples`."""
    ir.save(model, folder / "hub.onnx")
    ranges, given = stored(model, samples(), folder) if precision != "fp32" else (None, None)
    return Job(
        target="tflm",
        precision=precision,
        source=Source(path=str(folder / "hub.onnx"), kind="onnx", digest="", bytes=0),
        hub=str(folder / "hub.onnx"),
        inputs=tuple(_port(item) for item in model.graph.inputs),
        outputs=tuple(_port(item) for item in model.graph.outputs),
        options=options,
        calibration=None if given is None else str(given),
        ranges=None if ranges is None else str(ranges),
    )


def job_of_file(path: Path) -> Job:
    """A job for a TFLite source by its own file."""
    source = recognise(path)
    ports = frontends.load(source).signature
    return Job(
        target="tflm",
        precision="int8",
        source=source,
        hub="",
        inputs=ports.inputs,
        outputs=ports.outputs,
        options={"route": "as_is"},
    )


def job_of_zoo(name: str, zoo: Path, folder: Path, workers: Pool) -> Job:
    """A job for one of MLPerf Tiny's float models, read by TensorFlow in a worker, and calibrated."""
    path, _, inputs = MODELS[name]
    source = recognise(zoo / path)
    raw, graph, given, ranges = (folder / part for part in ("raw.onnx", "hub.onnx", "s.npz", "r.npz"))
    workers.run(source.worker, "export", {"source": asdict(source), "out": str(raw)})
    model = hub.canonical(onnx.load(raw), where=name).model
    ir.save(model, graph)
    ports = [tuple(_port(item) for item in items) for items in (model.graph.inputs, model.graph.outputs)]
    save_arrays(given, {ports[0][0].name: inputs(zoo)[0]})
    calibrate(graph, given, ranges)
    return Job(
        target="tflm",
        precision="int8",
        source=source,
        hub=str(graph),
        inputs=ports[0],
        outputs=ports[1],
        calibration=str(given),
        ranges=str(ranges),
    )


def single_operators(data: bytes) -> Iterator[tuple[str, bytes, Mapping[int, int]]]:
    """Name, file of its own, and for each input of that the tensor of `data`, for every operator."""
    model = schema.ModelT.InitFromPackedBuf(data)
    for op in model.subgraphs[0].operators:
        code = model.operatorCodes[op.opcodeIndex]
        name = _CODES[max(code.builtinCode, code.deprecatedBuiltinCode)]
        yield name, *_alone(model, op)


def tensors(data: bytes, sample: Any) -> Any:
    """A function that gives any tensor of the file after one inference in LiteRT's built-in kernels."""
    interpreter = Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=BUILTIN,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], sample.reshape(entry["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor


def in_litert(data: bytes, feeds: list[Any], kernels: OpResolverType) -> Any:
    """The first output."""
    interpreter = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    for detail, feed in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(detail["index"], feed)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def in_tflm(data: bytes, feeds: list[Any]) -> Any:
    """The first output."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(data, arena_size=4 << 20)
    for index, feed in enumerate(feeds):
        interpreter.set_input(feed, index)
    interpreter.invoke()
    return np.array(interpreter.get_output(0))


def quantized_input(data: bytes, values: Any) -> Any:
    """One sample as the file's input wants it."""
    interpreter = Interpreter(model_content=data)
    (entry,) = interpreter.get_input_details()
    scale, zero = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    whole = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
    return whole.astype(entry["dtype"]).reshape(entry["shape"])


def file_of(model: Any) -> bytes:
    """A FlatBuffer from the schema's objects."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _alone(model: Any, op: Any) -> tuple[bytes, Mapping[int, int]]:
    graph = model.subgraphs[0]
    part, lone = schema.ModelT(), schema.SubGraphT()
    part.version, part.buffers = 3, [schema.BufferT()]
    part.operatorCodes, part.subgraphs = [model.operatorCodes[op.opcodeIndex]], [lone]
    place: dict[int, int] = {}
    lone.tensors = []
    for index in [int(item) for item in (*op.inputs, *op.outputs) if item >= 0]:
        if index in place:
            continue
        tensor = copy.copy(graph.tensors[index])
        data = model.buffers[tensor.buffer].data
        tensor.buffer, tensor.shapeSignature = 0, None
        if data is not None and len(data):
            part.buffers.append(schema.BufferT())
            part.buffers[-1].data = np.array(data, np.uint8)
            tensor.buffer = len(part.buffers) - 1
        place[index] = len(lone.tensors)
        lone.tensors.append(tensor)
    alone = copy.copy(op)
    alone.opcodeIndex = 0
    alone.inputs = np.array([place.get(int(item), -1) for item in op.inputs], np.int32)
    alone.outputs = np.array([place[int(item)] for item in op.outputs], np.int32)
    lone.operators = [alone]
    read = [int(item) for item in op.inputs if item >= 0 and not lone.tensors[place[int(item)]].buffer]
    lone.inputs = np.array([place[item] for item in dict.fromkeys(read)], np.int32)
    lone.outputs = alone.outputs
    return file_of(part), dict(enumerate(dict.fromkeys(read)))


def _port(value: ir.Value) -> Tensor:
    assert value.shape is not None
    sizes = [size for size in value.shape if isinstance(size, int)]
    shape = (-1, *sizes[len(sizes) - len(value.shape) + 1 :])
    return Tensor(name=str(value.name), dtype="float32", shape=shape)
