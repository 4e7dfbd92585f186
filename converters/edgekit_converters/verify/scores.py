"""What a classifier's output says: one score a class, also for a single unit that decides between two.

The agent reads outputs by the same rule (`edgekit_agent.serving.pipeline`), so that reference
distributions and windows have the same bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def class_count(units: int) -> int:
    """Classes told apart by an output whose last axis has `units` entries."""
    return 2 if units == 1 else units


def class_scores(values: Array, activation: str) -> Array:
    """Scores whose argmax is the class: float64 (…, classes).

    A last axis of one unit is the probability of class 1 (a logit where `activation` is ``logits``) and
    becomes two columns; anything else is handed back as it is.
    """
    wide = np.asarray(values, np.float64)
    if values.ndim < 2 or values.shape[-1] != 1:
        return wide
    if activation == "logits":
        wide = 1 / (1 + np.exp(-np.clip(wide, -500, 500)))
    # At exactly one half the first class wins, as it does for the agent.
    return np.concatenate([1 - wide, wide], axis=-1)
