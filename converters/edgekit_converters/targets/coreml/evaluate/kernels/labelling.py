"""classify: the label of the largest probability."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel, undefined


@kernel("classify")
def _classify(probabilities: Array, classes: list[Any]) -> tuple[Array, Array]:
    """The label, and the probabilities in the order of `classes` (Core ML hands out a dictionary).

    Of several samples, as only the evaluator itself makes them, one label and one row each.
    """
    rows = probabilities.reshape(-1, len(classes)) if probabilities.size % len(classes) == 0 else None
    if rows is None or (len(rows) != 1 and len(rows) != probabilities.shape[0]):
        raise undefined("classify", f"{probabilities.size} probabilities for {len(classes)} classes")
    labels = np.array([classes[int(place)] for place in rows.argmax(axis=-1)])
    return (labels[0], rows[0]) if len(rows) == 1 else (labels, rows)
