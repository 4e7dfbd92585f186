"""Running an ONNX file: any batch, also where the file fixes its batch at one; onnxruntime's sessions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

_BATCH = 64
_BUDGET = 16 << 20
"""Bytes of inputs in one call, at most."""

# onnxruntime's errors have no common root below Exception.
REFUSALS = (
    RuntimeError,
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class BatchedSession(ABC):
    """Takes any number of samples in steps of the batch that the file takes; `call` is one of them."""

    def __init__(self, shapes: Mapping[str, Sequence[Any]], outputs: Sequence[str]) -> None:
        self.inputs = list(shapes)
        self.outputs = list(outputs)
        sizes = [shape[0] for shape in shapes.values() if shape]
        self._step = next((size for size in sizes if isinstance(size, int)), _BATCH)
        self._fixed = any(isinstance(size, int) for size in sizes)

    @property
    def fixed(self) -> bool:
        """Whether the file fixes its batch."""
        return self._fixed

    @abstractmethod
    def call(self, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """All outputs, in order, for a batch that the file takes."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute all outputs for all samples, in steps of the batch the file takes."""
        n, size = len(inputs[self.inputs[0]]), self._step
        if not self._fixed:  # what lies between grows with the inputs: large images go a few at a time
            each = sum(inputs[name].nbytes for name in self.inputs) // max(1, n)
            size = min(size, max(1, _BUDGET // max(1, each)))
        parts = [self.step({k: inputs[k][i : i + size] for k in self.inputs}) for i in range(0, n, size)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One call of the runtime."""
        n = len(inputs[self.inputs[0]])
        short = self._step - n if self._fixed else 0
        fed = {k: np.concatenate([v, np.repeat(v[-1:], short, 0)]) if short else v for k, v in inputs.items()}
        values = self.call(fed)
        # Only what was filled up is cut: an output with rows of its own number is not made to look right.
        return {k: v[:n] if short else v for k, v in zip(self.outputs, values, strict=True)}


class OnnxSession(BatchedSession):
    """One of onnxruntime on the CPU. With `optimized` False the graph runs node by node as it stands."""

    def __init__(self, model: Path | bytes, *, threads: int = 1, optimized: bool = True) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
        data = model if isinstance(model, bytes) else str(model)
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        shapes = {item.name: item.shape for item in self._session.get_inputs()}
        super().__init__(shapes, [item.name for item in self._session.get_outputs()])

    def call(self, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """One call of onnxruntime."""
        values: Sequence[Any] = self._session.run(None, dict(inputs))
        return values
