"""TFLite files (``.tflite``): as they are for TFLite targets, through their graph to the others.

`reader` checks the FlatBuffer, `graph` holds what the ops of `ops/` write, `signature` adds a
SignatureDef to a file that has none. LiteRT computes. A quantized file becomes a QDQ graph: every
integer tensor is ``QuantizeLinear`` and ``DequantizeLinear`` with the file's own scale, so an op
differs from the file's integer kernel by its rounding only, at most one step.
Specification: the TFLite schema (`ai_edge_litert.schema_py_generated`) and its operators' definitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit.package import Tensor
from edgekit_converters.frontends.tflite_model.convert import to_onnx
from edgekit_converters.frontends.tflite_model.reader import File, read
from edgekit_converters.values import EXACT, Signature

STEP_TOLERANCE = 0.15
"""How far a QDQ graph may be from integer kernels over a whole network, as a share of the range. Each op is
within one step (measured on every op of seven published files), and a softmax can make ten of one."""


class TfliteModel:
    """A TFLite file, its interpreter, and its ONNX form."""

    def __init__(self, file: File, interpreter: Any, path: Path) -> None:
        self._file, self._interpreter, self._path = file, interpreter, path
        self._inputs = _details(file.inputs, interpreter.get_input_details())
        self._outputs = _details(file.outputs, interpreter.get_output_details())
        self.signature = Signature(
            inputs=tuple(_port(file, name, index, path) for name, index in file.inputs.items()),
            outputs=tuple(_port(file, name, index, path) for name, index in file.outputs.items()),
            framework="tflite",
            activation=_activation(file),
            tolerance=STEP_TOLERANCE if file.quantized else EXACT,
        )

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        path.write_bytes(to_onnx(self._file, str(self._path)).SerializeToString(deterministic=True))
        from importlib.metadata import version

        return {"litert": version("ai-edge-litert")}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`; sample by sample, as a device does."""
        n = len(next(iter(inputs.values())))
        parts: dict[str, list[Any]] = {name: [] for name in self._outputs}
        for i in range(n):
            for name, index in self._inputs.items():
                self._interpreter.set_tensor(index, inputs[name][i : i + 1])
            self._interpreter.invoke()
            for name, index in self._outputs.items():
                parts[name].append(self._interpreter.get_tensor(index))
        return {name: np.concatenate(values) for name, values in parts.items()}


def load(path: Path) -> TfliteModel:
    """Load and check a file.

    Raises:
        SourceError: damaged, or of a kind that is not supported.
    """
    from ai_edge_litert.interpreter import Interpreter

    data = path.read_bytes()
    file = read(data, str(path))
    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise SourceError(
            f"LiteRT cannot load it: {' '.join(str(error).split())[:200]}",
            where=str(path),
            remedy="the file is damaged, or needs custom ops or a newer runtime",
            code="corrupt_source",
        ) from error
    return TfliteModel(file, interpreter, path)


def _details(ports: Mapping[str, int], details: list[dict[str, Any]]) -> dict[str, int]:
    """By port name the interpreter's index; both list the ports in the file's order."""
    return {name: int(item["index"]) for name, item in zip(ports, details, strict=True)}


def _port(file: File, name: str, index: int, path: Path) -> Tensor:
    item = file.tensors[index]
    if not item.shape:
        raise SourceError(f"{name!r} is a scalar; a batch axis is needed", where=str(path))
    if item.shape[0] != 1:
        raise SourceError(
            f"{name!r} has {item.shape[0]} on its first axis, where one sample is expected",
            where=str(path),
            remedy="export the model with batch size 1",
            code="unsupported_source",
        )
    return Tensor(name=name, dtype=str(item.dtype), shape=(-1, *item.shape[1:]))


def _activation(file: File) -> str:
    kinds = {index: op.kind for op in file.ops for index in op.outputs}
    index = next(iter(file.outputs.values()))
    for op in reversed(file.ops):  # conversions at the end do not count
        if index in op.outputs and op.kind in ("QUANTIZE", "DEQUANTIZE"):
            index = op.inputs[0]
    return {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}.get(kinds.get(index, ""), "none")
