"""Running a TFLite file in LiteRT, sample by sample as a device does, quantized ports converted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.package import Quantization, Tensor
from edgekit_converters.values import Built


class LiteRtSession:
    """A LiteRT interpreter. `kernels`: ``xnnpack`` (the default delegate) or ``builtin`` (without)."""

    def __init__(self, path: Path, artifact: Built, *, kernels: str = "xnnpack", threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.backend = kernels
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if kernels == "builtin" else None
        extra = {"experimental_op_resolver_type": resolver} if resolver is not None else {}
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads, **extra)
        self._interpreter.allocate_tensors()
        self._inputs = self._indices(artifact.inputs, self._interpreter.get_input_details())
        self._dtypes = {int(item["index"]): item["dtype"] for item in self._interpreter.get_input_details()}
        self._outputs = self._indices(artifact.outputs, self._interpreter.get_output_details())

    @staticmethod
    def _indices(ports: tuple[Tensor, ...], details: list[dict[str, Any]]) -> list[tuple[Tensor, int]]:
        by_name = {item["name"]: int(item["index"]) for item in details}
        return [(port, by_name[port.artifact_name or port.name]) for port in ports]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs for all samples, in the contract's dtypes."""
        n = len(inputs[self._inputs[0][0].name])
        parts = [self.step({name: value[i : i + 1] for name, value in inputs.items()}) for i in range(n)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port, _ in self._outputs}

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference."""
        for port, index in self._inputs:
            self._interpreter.set_tensor(index, quantize(inputs[port.name], port, self._dtypes[index]))
        self._interpreter.invoke()
        return {
            port.name: dequantize(_elements(self._interpreter, index), port) for port, index in self._outputs
        }


def _elements(interpreter: Any, index: int) -> Any:
    """A copy of an output, of which nothing may be left: then LiteRT has no memory to show."""
    try:
        return interpreter.get_tensor(index)
    except ValueError:
        details = next(item for item in interpreter.get_output_details() if item["index"] == index)
        if 0 not in details["shape"]:
            raise
        return np.empty(tuple(int(size) for size in details["shape"]), details["dtype"])


def quantize(values: Any, port: Tensor, dtype: Any = np.int8) -> Any:
    """Real values to the port's integers: round half to even, saturate to `dtype`."""
    if port.quantization is None:
        return values
    limits = np.iinfo(dtype)
    scaled = np.rint(np.asarray(values, np.float64) / port.quantization.scale) + port.quantization.zero_point
    return np.clip(scaled, limits.min, limits.max).astype(dtype)


def dequantize(values: Any, port: Tensor) -> Any:
    """The port's integers to real values in the contract's dtype."""
    found: Quantization | None = port.quantization
    if found is None:
        return values
    real = (values.astype(np.float64) - found.zero_point) * found.scale
    return real.astype(port.dtype)
