"""Running a TFLite file in TFLite Micro, sample by sample, quantized ports converted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.package import Tensor
from edgekit_converters.targets.tflite.runner import dequantize, quantize
from edgekit_converters.targets.tflm import arena, content
from edgekit_converters.values import Built


class TflmSession:
    """A TFLM interpreter with an arena that is large enough."""

    backend = "reference"

    def __init__(self, path: Path, artifact: Built) -> None:
        data = path.read_bytes()
        found = content.read(data)
        self._interpreter = arena.opened(data)
        self._stateful = found.stateful
        self._inputs = [(port, found.inputs[port.artifact_name or port.name]) for port in artifact.inputs]
        self._outputs = [(port, found.outputs[port.artifact_name or port.name]) for port in artifact.outputs]
        self._details = {index: self._interpreter.get_input_details(index) for _, index in self._inputs}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs for all samples, in the contract's dtypes."""
        n = len(inputs[self._inputs[0][0].name])
        parts = [self.step({name: value[i : i + 1] for name, value in inputs.items()}) for i in range(n)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port, _ in self._outputs}

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference, from the initial state."""
        if self._stateful:
            self._interpreter.reset()
        for port, index in self._inputs:
            self._interpreter.set_input(self._given(inputs[port.name], port, index), index)
        self._interpreter.invoke()
        return {port.name: self._got(port, index) for port, index in self._outputs}

    def _given(self, values: Any, port: Tensor, index: int) -> Any:
        details = self._details[index]
        whole = quantize(values, port, details["dtype"])
        return np.ascontiguousarray(whole).reshape(details["shape"])

    def _got(self, port: Tensor, index: int) -> Any:
        return dequantize(np.array(self._interpreter.get_output(index)), port)
