"""How other converters do on the same tests. Nothing checks what they wrote before it counts as shipped.

onnx2tf 2.6.9 (its own FlatBuffer writer) to TFLite; onnx2torch 1.5.15 with coremltools 9.0 to Core ML. Their
inputs and outputs may be channels-last: permuted arrays are taken as right.
"""

from __future__ import annotations

import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.coverage.suite import Arrays, Runner

_TO_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
_TO_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


def onnx2tf(model: onnx.ModelProto) -> Runner:
    """Convert by onnx2tf, run by LiteRT."""
    import onnx2tf as peer  # installed by `benchmarks.peers`
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "model.onnx", Path(place) / "out"
        onnx.save(model, source)
        peer.convert(input_onnx_file_path=str(source), output_folder_path=str(out), non_verbose=True)
        data = next(out.glob("*float32.tflite")).read_bytes()
    interpreter = Interpreter(model_content=data, num_threads=1)
    names = [item.name for item in model.graph.output]

    def run(inputs: Arrays) -> Arrays:
        ports = _by_name(interpreter.get_input_details(), inputs)
        fed = {port["index"]: _as_port(value, port) for port, value in ports}
        for index, value in fed.items():
            interpreter.resize_tensor_input(index, value.shape)
        interpreter.allocate_tensors()
        for index, value in fed.items():
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        found = [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]
        return dict(zip(names, found, strict=True))

    return run


def onnx2torch(model: onnx.ModelProto) -> Runner:
    """Import into PyTorch by onnx2torch, convert by coremltools, run by edgekit's evaluator."""
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes"):
        sys.modules.setdefault(name, _anything(name))
    import coremltools as ct
    import onnx2torch as peer  # installed by `benchmarks.peers`
    import torch

    from edgekit_converters.targets.coreml.evaluate import Evaluator

    module = peer.convert(model).eval()
    names = [item.name for item in model.graph.output]

    def run(inputs: Arrays) -> Arrays:
        tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()]
        jit: Any = torch.jit
        traced = jit.trace(module, tensors, check_trace=False)
        ports = [ct.TensorType(name=f"in{i}", shape=tuple(t.shape)) for i, t in enumerate(tensors)]
        program = ct.convert(
            traced,
            inputs=ports,
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "model.mlpackage"
            program.save(str(path))
            evaluator = Evaluator(path, precision="float32")
            fed = {f"in{i}": value for i, value in enumerate(inputs.values())}
            return dict(zip(names, evaluator.run(fed).values(), strict=False))

    return run


PEERS = {"onnx2tf": onnx2tf, "onnx2torch": onnx2torch}


def charitable(expected: Any, got: Any) -> Any:
    """`got`, channels put where the test expects them when only so the shapes agree."""
    got = np.asarray(got)
    if got.shape != expected.shape and got.ndim in _TO_FIRST:
        turned = got.transpose(_TO_FIRST[got.ndim])
        return turned if turned.shape == expected.shape else got
    return got


def _anything(name: str) -> types.ModuleType:
    """A module with every name in it: onnx2torch asks torchvision for two ops that hardly a test needs."""
    module = types.ModuleType(name)
    module.__dict__["__getattr__"] = lambda _: None
    module.__path__ = []
    return module


def _by_name(ports: list[dict[str, Any]], inputs: Arrays) -> list[tuple[dict[str, Any], Any]]:
    known = {name.replace("/", "_"): value for name, value in inputs.items()}
    found = []
    for index, port in enumerate(ports):
        name = port["name"].removeprefix("serving_default_").partition(":")[0]
        found.append((port, known.get(name, list(inputs.values())[index])))
    return found


def _as_port(value: Any, port: dict[str, Any]) -> Any:
    shape = tuple(int(size) for size in port["shape"])
    if shape != value.shape and value.ndim in _TO_LAST:
        turned = value.transpose(_TO_LAST[value.ndim])
        return np.ascontiguousarray(turned) if turned.shape == shape else value
    return value
