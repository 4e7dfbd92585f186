"""classify: the label of the largest probability."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel, undefined


@kernel("classify")
def _classify(probabilities: Array, classes: list[Any]) -> tuple[Array, Array]:
    """The label, and the probabilities in the order of `classes` (Core ML hands out a dictionary)."""
    flat = probabilities.reshape(-1)
    if flat.size != len(classes):
        raise undefined("classify", f"{flat.size} probabilities for {len(classes)} classes")
    return np.array(classes[int(flat.argmax())]), flat
