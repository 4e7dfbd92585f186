"""Reference distributions of a package, on the source's outputs over the evaluation data.

Inputs and real-valued outputs: all values over inner edges at the data's quantiles, so that each bin
holds a like share; classifiers: a count a class, and the confidence over equal bins of [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import OutputSpec
from edgekit.package import Distribution, Reference
from edgekit_converters.verify.scores import class_scores

Array = NDArray[Any]
_ENOUGH = 200_000


def reference(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array], specs: Sequence[OutputSpec], bins: int
) -> Reference:
    """Distributions of `inputs` and of the source's `outputs`."""
    classes = {item.name: item for item in specs if item.has_argmax}
    found_outputs, confidence = {}, {}
    for name, values in outputs.items():
        if name in classes:
            scores = class_scores(values, classes[name].activation)
            counts = np.bincount(scores.argmax(-1).ravel(), minlength=scores.shape[-1])
            found_outputs[name] = Distribution(kind="classes", counts=_whole(counts))
            edges = np.arange(1, bins) / bins
            confidence[name] = _counted(_confidence(values, scores, classes[name].activation), edges)
        elif values.dtype.kind == "f":
            found_outputs[name] = _binned(values, bins)
    floats = {name: value for name, value in inputs.items() if value.dtype.kind == "f"}
    return Reference(
        inputs={name: _binned(value, bins) for name, value in floats.items()},
        outputs=found_outputs,
        confidence=confidence,
    )


def _confidence(values: Array, scores: Array, activation: str) -> Array:
    """The largest probability of each sample."""
    if activation in ("softmax", "sigmoid") or values.shape != scores.shape:
        return np.asarray(scores.max(axis=-1))
    shifted = np.exp(values.astype(np.float64) - values.max(axis=-1, keepdims=True))
    return np.asarray((shifted / shifted.sum(axis=-1, keepdims=True)).max(axis=-1))


def _binned(values: Array, bins: int) -> Distribution:
    flat = values.ravel()
    # Edges need no more than this many values; every value is counted all the same.
    shares = np.quantile(flat[:: 1 + flat.size // _ENOUGH].astype(np.float64), np.arange(1, bins) / bins)
    edges = np.unique([float(f"{edge:.4g}") for edge in shares])
    return _counted(values, edges)


def _counted(values: Array, edges: Array) -> Distribution:
    """How many values lie below the first edge, from each edge to the next, and from the last one on."""
    flat = values.ravel()
    least = edges if flat.dtype == np.float64 else _least(edges)
    # One pass an edge is many times faster than a search for each value; what is no number is last.
    above = [flat.size - int(np.count_nonzero(flat < edge)) for edge in least]
    counts = -np.diff([flat.size, *above, 0])
    return Distribution(kind="bins", counts=_whole(counts), edges=tuple(float(e) for e in edges))


def _least(edges: Array) -> Array:
    """The smallest float32 that is not below each edge: float32 values compare with both alike."""
    near = edges.astype(np.float32)
    return np.where(near < edges, np.nextafter(near, np.float32(np.inf)), near)


def _whole(counts: Array) -> tuple[int, ...]:
    return tuple(int(item) for item in counts)
