"""Triton's Python backend with onnxruntime or LiteRT inside: serves a model repository's file as it is.

This file runs in tritonserver's stub process. The model's parameters say where the file lies
(``model_file``, relative to the model's folder) and with how many threads it runs (``threads``).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

pb_utils = importlib.import_module("triton_python_backend_utils")  # only the stub process has it


class TritonPythonModel:
    """One onnxruntime session or LiteRT interpreter on the CPU."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the file; every output keeps the type the configuration names."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        path = Path(args["model_repository"]) / parameters["model_file"]
        runtime = _LiteRt if path.suffix == ".tflite" else _Onnx
        self._runtime = runtime(str(path), int(parameters["threads"]))
        self._inputs = [item["name"] for item in config["input"]]
        self._outputs = [item["name"] for item in config["output"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request of the batch that the server formed."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        fed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        values = self._runtime.run(fed, self._outputs)
        tensors = [pb_utils.Tensor(name, value) for name, value in zip(self._outputs, values, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)


class _Onnx:
    """onnxruntime, CPU provider."""

    def __init__(self, path: str, threads: int) -> None:
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, fed: Mapping[str, Any], wanted: Sequence[str]) -> list[Any]:
        """The outputs called `wanted`."""
        values: list[Any] = self._session.run(list(wanted), dict(fed))
        return values


class _LiteRt:
    """LiteRT with its default kernels."""

    def __init__(self, path: str, threads: int) -> None:
        litert = importlib.import_module("ai_edge_litert.interpreter")
        self._interpreter = litert.Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()

    def run(self, fed: Mapping[str, Any], wanted: Sequence[str]) -> list[Any]:
        """The outputs called `wanted`."""
        places = {item["name"]: item["index"] for item in self._interpreter.get_input_details()}
        for name, value in fed.items():
            self._interpreter.set_tensor(places[name], value)
        self._interpreter.invoke()
        places = {item["name"]: item["index"] for item in self._interpreter.get_output_details()}
        return [self._interpreter.get_tensor(places[name]) for name in wanted]
