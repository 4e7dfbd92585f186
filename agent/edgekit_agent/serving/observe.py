"""Which reference bins a request falls into: the numpy half of `edgekit_agent.windows`.

Inputs are sampled, at most 64 values a sample and 16 samples a request: every stride-th value
from a start that moves on with each request, so that all places are seen alike over time. Outputs with
a reference over classes are counted by argmax, others by value.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.package import Distribution, Reference
from edgekit.ports import Arrays
from edgekit_agent.serving.values import Decision
from edgekit_agent.windows import Observations

VALUES_PER_SAMPLE = 64
SAMPLES_PER_REQUEST = 16


class Observer:
    """Finds bin numbers for one package's reference. Thread-safe."""

    def __init__(self, reference: Reference) -> None:
        self._inputs = _edges(reference.inputs)
        self._outputs = _edges(reference.outputs)
        self._confidence = _edges(reference.confidence)
        self._limits = {name: len(item.counts) for name, item in reference.outputs.items() if item.counts}
        self._turn = count()

    def observe(self, inputs: Arrays, outputs: Arrays, decisions: Mapping[str, Decision]) -> Observations:
        """Bins of one request: model inputs (after preprocessing), outputs and decisions."""
        found: list[tuple[tuple[str, str], list[int]]] = []
        turn = next(self._turn)
        for name, edges in self._inputs.items():
            if name in inputs:
                values = _sampled(inputs[name], turn)
                found.append((("inputs", name), edges.searchsorted(values, "right").tolist()))
        for name, edges in self._outputs.items():
            if name in outputs:
                values = _sampled(outputs[name], turn)
                found.append((("predictions", name), edges.searchsorted(values, "right").tolist()))
        for name, decision in decisions.items():
            if name not in self._outputs:
                limit = self._limits.get(name)
                classes = [c for c in decision.classes if limit is None or c < limit]
                found.append((("predictions", name), classes))
            if name in self._confidence:
                bins = self._confidence[name].searchsorted(decision.confidence, "right").tolist()
                found.append((("confidence", name), bins))
        return found


def _edges(members: Mapping[str, Distribution]) -> dict[str, NDArray[np.float64]]:
    """Inner edges of the distributions over values."""
    return {
        name: np.asarray(item.edges)
        for name, item in members.items()
        if item.kind == "bins" and len(item.counts) == len(item.edges) + 1
    }


def _sampled(array: NDArray[Any], turn: int) -> NDArray[Any]:
    rows = array[:SAMPLES_PER_REQUEST].reshape(min(len(array), SAMPLES_PER_REQUEST), -1)
    stride = -(-rows.shape[1] // VALUES_PER_SAMPLE)
    return rows[:, turn % stride :: stride].ravel() if stride > 1 else rows.ravel()


__all__ = ["SAMPLES_PER_REQUEST", "VALUES_PER_SAMPLE", "Observer"]
