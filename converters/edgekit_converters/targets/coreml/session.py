"""A saved package under the reference evaluator, as the engine runs artifacts. For coremltools workers.

What comes out is *emulated*: numpy computes what the program says, op by op, either as written or with
all floats in float32. Apple's runtime is not involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.package import Tensor
from edgekit_converters.targets.coreml.evaluate import Evaluator
from edgekit_converters.targets.coreml.lower.boundary import Port
from edgekit_converters.targets.coreml.lower.interface import ImageInput
from edgekit_converters.values import Built

PRECISIONS = {"as written": "float16", "float32": "float32"}
"""Kernel set → what the evaluator calls it: its ``float16`` rounds wherever the program says so."""


class EmulatedSession:
    """An evaluator that takes and gives the contract's tensors."""

    def __init__(self, path: Path, built: Built, *, kernels: str) -> None:
        self.backend = f"reference evaluator, {kernels}"
        self._evaluator = Evaluator(path, precision=PRECISIONS[kernels])
        images = built.facts.get("images", {})
        self._inputs = [_port(item, images.get(item.name)) for item in built.inputs]
        self._outputs = [_port(item, None) for item in built.outputs]
        sizes = [value.shape[0] for value in self._evaluator.inputs.values() if value.shape]
        self._single = all(size == 1 for size in sizes)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs for all samples."""
        fed = {port.artifact_name: port.encode(np.asarray(inputs[port.name])) for port in self._inputs}
        found = self._evaluator.run_many(fed) if self._single else self._evaluator.run(fed)
        return {
            port.name: np.asarray(found[port.artifact_name]).astype(np.dtype(port.dtype))
            for port in self._outputs
        }


def _port(item: Tensor, image: Mapping[str, Any] | None) -> Port:
    return Port(
        name=item.name,
        artifact_name=item.artifact_name or item.name,
        dtype=item.dtype,
        shape=tuple(item.shape),
        image=None if image is None else ImageInput(**image),
    )
