"""The saved emulation of a bundle as the engine runs artifacts: onnxruntime, optimizations off.

Sums are float sums of values on the SoC's grids; the accelerator's own rounding and saturation of
accumulators are not modelled. Nothing of TI is involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.values import Built

EMULATION = "emulation/model.onnx"


class EmulatedSession:
    """The QDQ graph."""

    def __init__(self, folder: Path, built: Built, *, threads: int) -> None:
        soc, compiled = built.facts.get("soc", "a TI SoC"), built.facts.get("compiled", False)
        self.backend = f"QDQ emulation of {soc}, {'compiled' if compiled else 'not compiled'}"
        self._session = OnnxSession(folder / EMULATION, threads=threads, optimized=False)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs for all samples."""
        return self._session.run(inputs)

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference."""
        return self._session.step(inputs)
