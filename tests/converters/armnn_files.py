"""For the tests of Arm NN: graphs written within an allow-list, run by it and by LiteRT on the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter

from edgekit import armnn
from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.frontends.tflite_model import convert, reader
from edgekit_converters.targets.tflite.build import batch_of_one
from edgekit_converters.targets.tflite.lower import Lowered, Options, build
from edgekit_converters.targets.tflite.lower.restrict import Restriction
from tests.conftest import missing
from tests.converters.tflite_ops import parsed

OLDEST = "armnn-20.08"


def require_armnn() -> str:
    """The release here; skips where there is none, fails in CI."""
    found = armnn.version()
    if found is None:
        missing(f"no pyarmnn: apt-get install {armnn.PACKAGES}")
    return found


def written(model: ir.Model, rules: str = OLDEST) -> Lowered:
    """The file of a canonical graph (float or QDQ) within the allow-list of `rules`."""
    return build(batch_of_one(model), options=Options(grammar=Restriction(load_rules(rules))))


def graph(text: str) -> ir.Model:
    """The canonical graph of onnx's text form."""
    return hub.canonical(parsed(text)).model


def read_back(path: Path) -> ir.Model:
    """The canonical graph of a TFLite file, quantized as the file is."""
    return hub.canonical(convert.to_onnx(reader.read(path.read_bytes(), str(path)), str(path))).model


@dataclass(frozen=True)
class Difference:
    """How far both runtimes are apart on integer outputs (steps) or float ones (value)."""

    largest: float
    share: float
    range: float


def compared(data: bytes, feeds: Mapping[str, Any], folder: Path) -> Difference:
    """Run every sample of `feeds` (the file's own types, or floats to be put on its grid) in both."""
    path = folder / "model.tflite"
    path.write_bytes(data)
    lite = Interpreter(model_content=data, num_threads=1)
    lite.allocate_tensors()
    inputs = {item["name"]: item for item in lite.get_input_details()}
    outputs = {item["name"]: item for item in lite.get_output_details()}
    child = armnn.ArmnnChild(path, backends=("CpuRef",))
    gaps, values = [], []
    try:
        for i in range(len(next(iter(feeds.values())))):
            sample = {name: _on_grid(feeds[name][i : i + 1], item) for name, item in inputs.items()}
            for name, item in inputs.items():
                lite.set_tensor(item["index"], sample[name])
            lite.invoke()
            answer = child.run([sample[port.name].tobytes() for port in child.inputs])
            for port, part in zip(child.outputs, answer, strict=True):
                expected = lite.get_tensor(outputs[port.name]["index"]).reshape(-1).astype(np.float64)
                found = np.frombuffer(part, port.dtype).astype(np.float64)
                gaps.append(np.abs(found - expected))
                values.append(expected)
    finally:
        child.close()
    gap, value = np.concatenate(gaps), np.concatenate(values)
    return Difference(float(gap.max()), float((gap > 0).mean()), float(np.ptp(value)))


def _on_grid(values: Any, item: Mapping[str, Any]) -> Any:
    scale, zero = item["quantization"]
    if item["dtype"] is np.float32 or values.dtype == item["dtype"]:
        return np.ascontiguousarray(values.reshape(item["shape"]))
    steps = np.rint(values / scale) + zero
    ends = np.iinfo(item["dtype"])
    return np.clip(steps, ends.min, ends.max).astype(item["dtype"]).reshape(item["shape"])


def meant(model: ir.Model, data: bytes, feeds: Mapping[str, Any]) -> Difference:
    """How far the written file, in LiteRT, is from the graph itself in onnxruntime."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    proto = hub.to_proto(batch_of_one(model)).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    lite = Interpreter(model_content=data, num_threads=1)
    lite.allocate_tensors()
    (inner,), (outer,) = lite.get_input_details(), lite.get_output_details()
    scale, zero = outer["quantization"]
    gaps, values = [], []
    for sample in feeds[inner["name"]]:
        (expected,) = session.run(None, {inner["name"]: sample[None]})
        lite.set_tensor(inner["index"], _on_grid(sample[None], inner))
        lite.invoke()
        found = lite.get_tensor(outer["index"]).astype(np.float64)
        found = (found - zero) if scale else found
        gaps.append(np.abs(found - expected / (scale or 1.0)).reshape(-1))
        values.append(expected.reshape(-1) / (scale or 1.0))
    gap, value = np.concatenate(gaps), np.concatenate(values)
    return Difference(float(gap.max()), float((gap > 0.5).mean()), float(np.ptp(value)))
