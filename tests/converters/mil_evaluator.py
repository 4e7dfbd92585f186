"""A small evaluator of saved ML Programs for tests, written from the MIL op definitions.

It reads the protobuf of the ``.mlpackage`` itself (not our lowering's data), in float32, with
onnxruntime for convolution and pooling. Only the ops that the tests' programs hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from tests.converters.graphs import Array

_BLOB_DTYPES = {1: np.float16, 2: np.float32, 3: np.uint8, 4: np.int8}


def evaluate(package: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of the program in `package` for one batch."""
    data = package / "Data" / "com.apple.CoreML"
    weights = data / "weights" / "weight.bin"
    blob = weights.read_bytes() if weights.exists() else b""
    spec = _spec(data / "model.mlmodel")
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    values: dict[str, Any] = dict(inputs)
    for op in block.operations:
        if op.type == "const":
            values[op.outputs[0].name] = _constant(op.attributes["val"], blob)
            continue
        arguments = {name: _argument(item, values, blob) for name, item in op.inputs.items()}
        values[op.outputs[0].name] = OPS[op.type](arguments)
    return {name: values[name] for name in block.outputs}


def _spec(path: Path) -> Any:
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString(path.read_bytes())
    return spec


def _argument(item: Any, values: Mapping[str, Any], blob: bytes) -> Any:
    found = [
        values[b.name] if b.WhichOneof("binding") == "name" else _constant(b.value, blob)
        for b in item.arguments
    ]
    return found[0] if len(found) == 1 else found


def _constant(value: Any, blob: bytes) -> Any:
    shape = [d.constant.size for d in value.type.tensorType.dimensions]
    if value.WhichOneof("value") == "blobFileValue":
        return _from_blob(blob, value.blobFileValue.offset).reshape(shape)
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind == "bytes":
        dtype = {10: np.float16, 11: np.float32, 21: np.int8, 22: np.int16, 31: np.uint8}[
            value.type.tensorType.dataType
        ]
        return np.frombuffer(tensor.bytes.values, dtype).reshape(shape)
    found = list(getattr(tensor, kind).values)
    if kind == "strings":
        return found[0]
    array = np.array(found, {"floats": np.float32, "ints": np.int32}.get(kind))
    return array.reshape(shape) if shape else array[0]


def _from_blob(blob: bytes, offset: int) -> Array:
    """Specification: MILBlob's storage format, 64-byte metadata: sentinel, type, size, offset."""
    sentinel, kind, size, start = struct.unpack_from("<IIQQ", blob, offset)
    assert sentinel == 0xDEADBEEF
    return np.frombuffer(blob[start : start + size], _BLOB_DTYPES[kind])


def _onnx(kind: str, *arrays: Array, **attributes: Any) -> Array:
    names = [f"i{n}" for n in range(len(arrays))]
    node = helper.make_node(kind, names, ["y"], **attributes)
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    graph = helper.make_graph(
        [node], "op", ports, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: Array = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    return result


def _padding(a: Mapping[str, Any]) -> dict[str, Any]:
    mode = str(a.get("pad_type", "valid"))
    if mode == "custom":
        pairs = [int(v) for v in a["pad"]]
        return {"pads": pairs[0::2] + pairs[1::2]}
    return {"auto_pad": {"valid": "VALID", "same": "SAME_UPPER", "same_lower": "SAME_LOWER"}[mode]}


def _whole(values: Any) -> list[int]:
    return [int(v) for v in np.atleast_1d(values)]


def _conv(a: Mapping[str, Any]) -> Array:
    extra = [a["bias"]] if "bias" in a else []
    return _onnx(
        "Conv",
        a["x"],
        a["weight"],
        *extra,
        strides=_whole(a["strides"]),
        dilations=_whole(a["dilations"]),
        group=int(a["groups"]),
        **_padding(a),
    )


def _max_pool(a: Mapping[str, Any]) -> Array:
    return _onnx(
        "MaxPool", a["x"], kernel_shape=_whole(a["kernel_sizes"]), strides=_whole(a["strides"]), **_padding(a)
    )


def _avg_pool(a: Mapping[str, Any]) -> Array:
    count = int(not a["exclude_padding_from_average"])
    shared = {"kernel_shape": _whole(a["kernel_sizes"]), "strides": _whole(a["strides"]), **_padding(a)}
    return _onnx("AveragePool", a["x"], count_include_pad=count, **shared)


def _reduce(function: Callable[..., Array]) -> Callable[[Mapping[str, Any]], Array]:
    return lambda a: function(a["x"], axis=tuple(_whole(a["axes"])), keepdims=bool(a["keep_dims"]))


def _matmul(a: Mapping[str, Any]) -> Array:
    x = np.swapaxes(a["x"], -1, -2) if a.get("transpose_x") else a["x"]
    y = np.swapaxes(a["y"], -1, -2) if a.get("transpose_y") else a["y"]
    return np.asarray(x @ y)


def _linear(a: Mapping[str, Any]) -> Array:
    return np.asarray(a["x"] @ a["weight"].T + a.get("bias", 0))


def _softmax(a: Mapping[str, Any]) -> Array:
    shifted = np.exp(a["x"] - a["x"].max(axis=int(a["axis"]), keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=int(a["axis"]), keepdims=True))


def _batch_norm(a: Mapping[str, Any]) -> Array:
    shape = [-1] + [1] * (a["x"].ndim - 2)
    factor = (a["gamma"] / np.sqrt(a["variance"] + a["epsilon"])).reshape(shape)
    return np.asarray((a["x"] - a["mean"].reshape(shape)) * factor + a["beta"].reshape(shape))


def _pad(a: Mapping[str, Any]) -> Array:
    assert str(a["mode"]) == "constant"
    pairs = np.array(_whole(a["pad"])).reshape(-1, 2)
    full = [(0, 0)] * (a["x"].ndim - len(pairs)) + [(int(b), int(c)) for b, c in pairs]
    return np.pad(a["x"], full, constant_values=np.float32(a["constant_val"]))


OPS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "abs": lambda a: np.abs(a["x"]),
    "add": lambda a: a["x"] + a["y"],
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "clip": lambda a: np.clip(a["x"], a["alpha"], a["beta"]),
    "concat": lambda a: np.concatenate(a["values"], axis=int(a["axis"])),
    "conv": _conv,
    "exp": lambda a: np.exp(a["x"]),
    "expand_dims": lambda a: np.expand_dims(a["x"], tuple(_whole(a["axes"]))),
    "identity": lambda a: a["x"],
    "leaky_relu": lambda a: np.where(a["x"] >= 0, a["x"], a["x"] * a["alpha"]),
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "maximum": lambda a: np.maximum(a["x"], a["y"]),
    "minimum": lambda a: np.minimum(a["x"], a["y"]),
    "mul": lambda a: a["x"] * a["y"],
    "pad": _pad,
    "real_div": lambda a: a["x"] / a["y"],
    "reduce_max": _reduce(np.max),
    "reduce_mean": _reduce(np.mean),
    "reduce_sum": _reduce(np.sum),
    "relu": lambda a: np.maximum(a["x"], 0),
    "relu6": lambda a: np.clip(a["x"], 0, 6),
    "reshape": lambda a: np.reshape(a["x"], _whole(a["shape"])),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a["x"])),
    "sigmoid_hard": lambda a: np.clip(a["x"] * a["alpha"] + a["beta"], 0, 1),
    "silu": lambda a: a["x"] / (1 + np.exp(-a["x"])),
    "softmax": _softmax,
    "sqrt": lambda a: np.sqrt(a["x"]),
    "squeeze": lambda a: np.squeeze(a["x"], tuple(_whole(a["axes"]))),
    "sub": lambda a: a["x"] - a["y"],
    "tanh": lambda a: np.tanh(a["x"]),
    "transpose": lambda a: np.transpose(a["x"], _whole(a["perm"])),
}
