"""Triton's Python backend with onnxruntime inside: serves a model repository's ONNX file as it is.

This file runs in tritonserver's stub process. The model's parameters say where the file lies
(``onnx_file``, relative to the model's folder) and with how many threads it runs (``threads``).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

pb_utils = importlib.import_module("triton_python_backend_utils")  # only the stub process has it


class TritonPythonModel:
    """One onnxruntime session on the CPU."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the file; every output keeps the type the configuration names."""
        onnxruntime = importlib.import_module("onnxruntime")

        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"])
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        path = str(Path(args["model_repository"]) / parameters["onnx_file"])
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [item["name"] for item in config["input"]]
        self._outputs = [item["name"] for item in config["output"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request of the batch that the server formed."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        fed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        values = self._session.run(self._outputs, fed)
        tensors = [pb_utils.Tensor(name, value) for name, value in zip(self._outputs, values, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
