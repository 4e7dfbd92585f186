"""An onnxruntime session that names its backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit_converters.onnx_session import OnnxSession


class TargetSession:
    """`OnnxSession` as a target's session."""

    def __init__(self, path: Path, *, kernels: str, threads: int) -> None:
        self.backend = "CPUExecutionProvider" + ("" if kernels == "optimized" else " (as written)")
        self._session = OnnxSession(path, threads=threads, optimized=kernels == "optimized")

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs for all samples."""
        return self._session.run(inputs)

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference."""
        return self._session.step(inputs)
