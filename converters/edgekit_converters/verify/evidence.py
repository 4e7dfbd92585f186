"""What the report shows beside the verdict: who is taken for whom, gain, and what is predicted how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import OutputSpec
from edgekit_converters.verify.scores import class_scores
from edgekit_converters.verify.tasks.classification import confusion, gain

Array = NDArray[Any]

CLASSES = 40
"""A table of more classes than these nobody reads."""
_BINS = 20


def evidence(
    spec: OutputSpec | None, source: Mapping[str, Array], variant: Mapping[str, Array], labels: Array | None
) -> dict[str, Any]:
    """JSON-ready evidence on the judged output, or on the first one.

    Returns:
        ``distribution`` {output, ticks, source, variant} always; with labels of a classifier also
        ``confusion`` [label][answer] and, with two classes, ``gain`` (cumulative, at 10 % steps) of both.
    """
    name = spec.name if spec is not None else next(iter(source))
    classifies = spec is not None and spec.task == "classification"
    activation = spec.activation if spec is not None else "none"
    found: dict[str, Any] = {
        "distribution": _classes(spec, source[name], variant[name])
        if classifies and spec is not None
        else _values(name, source[name], variant[name])
    }
    if not classifies or labels is None:
        return found
    counts = confusion(variant[name], labels, activation)
    if len(counts) <= CLASSES:
        found["confusion"] = counts
    if len(counts) == 2:
        found["gain"] = {
            "source": gain(source[name], labels, activation, positive=1),
            "variant": gain(variant[name], labels, activation, positive=1),
        }
    return found


def _classes(spec: OutputSpec, source: Array, variant: Array) -> dict[str, Any]:
    answers = [class_scores(item, spec.activation).argmax(-1).ravel() for item in (source, variant)]
    kinds = max(int(item.max()) for item in answers) + 1
    counts = [np.bincount(item, minlength=kinds) for item in answers]
    shown = np.argsort(-counts[0], kind="stable")[:CLASSES]
    shown = np.sort(shown)
    ticks = [spec.labels[kind] if kind < len(spec.labels) else str(kind) for kind in shown]
    return {
        "output": spec.name,
        "ticks": ticks,
        "source": [int(counts[0][kind]) for kind in shown],
        "variant": [int(counts[1][kind]) for kind in shown],
    }


def _values(name: str, source: Array, variant: Array) -> dict[str, Any]:
    flat = source.astype(np.float64).ravel()
    low, high = float(flat.min()), float(flat.max())
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    ours = np.clip(np.nan_to_num(variant.astype(np.float64).ravel()), edges[0], edges[-1])
    return {
        "output": name,
        "ticks": [f"{edge:.3g}" for edge in edges[:-1]],
        "source": np.histogram(flat, edges)[0].tolist(),
        "variant": np.histogram(ours, edges)[0].tolist(),
    }
