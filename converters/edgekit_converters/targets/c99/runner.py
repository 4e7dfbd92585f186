"""Running generated C: a shared library of the host's compiler, called in this (worker) process."""

from __future__ import annotations

import ctypes
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.package import Tensor
from edgekit_converters.targets.c99.compiler import compile_c
from edgekit_converters.targets.tflite.runner import dequantize, quantize
from edgekit_converters.values import Built

SERIAL = ("ek_serial.c", "ek_serial_model.c", "serial_main.c")
"""Files that a program needs and a library does not."""


class C99Session:
    """The compiled model. `kernels` is the compiler's level of optimization, such as ``O2``."""

    def __init__(self, folder: Path, artifact: Built, *, kernels: str) -> None:
        self.backend = f"cc -{kernels}"
        with tempfile.TemporaryDirectory(prefix="edgekit-c99-") as place:  # once loaded, the file may go
            built = Path(place) / "model.so"
            compile_c(folder, built, (f"-{kernels}", "-shared", "-fPIC"), skip=SERIAL)
            self._library = ctypes.CDLL(str(built))
        for name in ("model_input", "model_output"):
            getattr(self._library, name).restype = ctypes.c_void_p
        for name in ("model_input_bytes", "model_output_bytes"):
            getattr(self._library, name).restype = ctypes.c_size_t
        self._library.model_init()
        self._inputs, self._outputs = artifact.inputs, artifact.outputs
        size = ctypes.c_size_t.in_dll(self._library, "model_ports_bytes").value
        text = bytes((ctypes.c_char * size).in_dll(self._library, "model_ports"))
        self._order = json.loads(b"{" + text)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs for all samples, in the contract's dtypes."""
        n = len(inputs[self._inputs[0].name])
        parts = [self.step({name: value[i : i + 1] for name, value in inputs.items()}) for i in range(n)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port in self._outputs}

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference."""
        for port in self._inputs:
            place, dtype, _ = self._port("inputs", port)
            values = np.ascontiguousarray(quantize(inputs[port.name], port, dtype), dtype)
            self._check(values.nbytes, self._library.model_input_bytes(place), port.name)
            ctypes.memmove(self._library.model_input(place), values.ctypes.data, values.nbytes)
        self._library.model_invoke()
        return {port.name: self._read(port) for port in self._outputs}

    def _read(self, port: Tensor) -> Any:
        place, dtype, shape = self._port("outputs", port)
        values = np.empty(shape, dtype)
        self._check(values.nbytes, self._library.model_output_bytes(place), port.name)
        ctypes.memmove(values.ctypes.data, self._library.model_output(place), values.nbytes)
        return dequantize(values, port)

    def _port(self, kind: str, port: Tensor) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
        """Number, type and shape of a port of the C."""
        found = self._order[kind]
        place = [item["name"] for item in found].index(port.artifact_name or port.name)
        return place, np.dtype(found[place]["dtype"]), tuple(found[place]["shape"])

    @staticmethod
    def _check(given: int, wanted: int, name: str) -> None:
        if given != wanted:
            raise ValueError(f"{name} has {given} bytes, the model takes {wanted}")
