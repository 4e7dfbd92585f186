"""Classification: top-1, top-5, the area under the ROC curve of two-class models, confusion, gain.

AUC is the Mann–Whitney statistic (Hanley and McNeil, Radiology 143, 1982), ties counted half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.paired import binomial_tail
from edgekit_converters.verify.scores import class_scores
from edgekit_converters.verify.tasks.paired import Figure, mean

Array = NDArray[Any]
_RARE = 0.001


def classification_figures(name: str, source: Array, labels: Array, activation: str) -> tuple[Figure, ...]:
    """Figures for output `name` of shape (n, classes) or (n, 1); `labels` are (n,) class numbers."""
    classes = class_scores(source[:1], activation).shape[-1]
    found = [
        Figure(name="top1", output=name, rows=_hits(name, labels, activation, 1), value=mean, exact=True)
    ]
    if classes > 5:
        found.append(
            Figure(name="top5", output=name, rows=_hits(name, labels, activation, 5), value=mean, exact=True)
        )
    if classes == 2 and len(np.unique(labels)) == 2:
        found.append(Figure(name="auc", output=name, rows=_scored(name, labels, activation), value=auc))
    return tuple(found)


def worse_than_chance(hits: Array, classes: int) -> bool:
    """Whether guessing among `classes` gives so few `hits` (n,) less than once in a thousand times."""
    right, n = int(np.count_nonzero(hits)), len(hits)
    return binomial_tail(n - right, n, 1 - 1 / max(classes, 2)) < _RARE


def auc(rows: Array) -> float:
    """Area under the ROC curve of rows (score, label); NaN where only one class is left."""
    scores, labels = rows[:, 0], rows[:, 1] > 0
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    values, places = np.unique(scores, return_inverse=True)
    counts = np.bincount(places, minlength=len(values))
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def confusion(values: Array, labels: Array, activation: str) -> list[list[int]]:
    """Counts [label][answer]; outputs (n, classes) or (n, 1)."""
    scores = class_scores(values, activation)
    classes = max(scores.shape[-1], int(labels.max()) + 1)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, scores.argmax(-1)), 1)
    found: list[list[int]] = counts.tolist()
    return found


def gain(values: Array, labels: Array, activation: str, *, positive: int, steps: int = 10) -> list[float]:
    """Cumulative gain: of all samples of class `positive`, the share among the best scored 10 %, 20 %, …

    Divided by the share of samples looked at it is the lift.
    """
    scores = class_scores(values, activation)[:, positive]
    hits = (labels == positive)[np.argsort(-scores, kind="stable")]
    total = max(1, int(hits.sum()))
    cuts = [round(len(hits) * (step + 1) / steps) for step in range(steps)]
    return [round(float(hits[:cut].sum() / total), 4) for cut in cuts]


def _hits(name: str, labels: Array, activation: str, k: int) -> Any:
    def rows(outputs: Mapping[str, Array]) -> Array:
        scores = class_scores(outputs[name], activation)
        if k == 1:
            return np.asarray(scores.argmax(-1) == labels)
        best = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
        return np.asarray((best == labels[:, None]).any(axis=1))

    return rows


def _scored(name: str, labels: Array, activation: str) -> Any:
    def rows(outputs: Mapping[str, Array]) -> Array:
        return np.stack([class_scores(outputs[name], activation)[:, 1], labels], axis=1)

    return rows
