"""Detection: mean average precision, over IoU 0.50 to 0.95 (``map``) and at 0.50 (``map50``).

The definition is COCO's (Lin et al., ECCV 2014): per class, 101 recall points, the best hundred boxes a
sample, each box of the truth found once. Crowds and area ranges are not told apart.

Outputs are found by name: ``boxes`` (n, k, 4), ``scores`` (n, k) or (n, k, classes) and, with the first,
``classes`` (n, k); or one output (n, k, 6) of box, score, class. Labels are (n, m, 5): class, then the box in
the same four numbers as the outputs'; rows of class -1 fill up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit_converters.verify.tasks.paired import Figure

Array = NDArray[Any]
IOUS = np.arange(0.5, 1.0, 0.05)
_BEST = 100
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """One sample's answers: `scores` and `kinds` (k,), `hits` (k, len(IOUS)); `truth` counts a class."""

    scores: Array
    kinds: Array
    hits: Array
    truth: Mapping[int, int]


def detection_figures(outputs: Mapping[str, Array], labels: Array, where: str) -> tuple[Figure, ...]:
    """Both figures.

    Raises:
        DataError: labels or outputs of another form.
    """
    if labels.ndim != 3 or labels.shape[-1] != 5:
        raise DataError(
            f"labels (n, m, 5) of class and box were expected, not {labels.shape}",
            where=where,
            remedy="one row a box: class, four numbers as the model gives them; class -1 fills up",
            code="wrong_shape",
        )
    if _boxes(outputs) is None:
        raise DataError(
            f"no boxes among the outputs {sorted(outputs)}",
            where=where,
            remedy="name the outputs boxes, scores and classes in the contract",
            code="ports_differ",
        )

    def rows(found: Mapping[str, Array]) -> Array:
        boxes = _boxes(found)
        assert boxes is not None
        made = np.empty(len(labels), object)
        for index, truth in enumerate(labels):
            made[index] = _matched(boxes[0][index], boxes[1][index], boxes[2][index], truth)
        return made

    first = next(iter(outputs))
    return (
        Figure(name="map", output=first, rows=rows, value=lambda r: _mean_precision(r, slice(None))),
        Figure(name="map50", output=first, rows=rows, value=lambda r: _mean_precision(r, slice(0, 1))),
    )


def _boxes(outputs: Mapping[str, Array]) -> tuple[Array, Array, Array] | None:
    """Boxes (n, k, 4), scores (n, k), classes (n, k)."""
    for value in outputs.values():
        if value.ndim == 3 and value.shape[-1] == 6:
            return value[..., :4], value[..., 4], value[..., 5].astype(np.int64)
    if "boxes" not in outputs or "scores" not in outputs:
        return None
    boxes, scores = outputs["boxes"], outputs["scores"]
    if scores.ndim == 3:
        return boxes, scores.max(axis=-1), scores.argmax(axis=-1)
    if "classes" not in outputs:
        return None
    return boxes, scores, outputs["classes"].astype(np.int64)


def _matched(boxes: Array, scores: Array, kinds: Array, truth: Array) -> _Sample:
    order = np.argsort(-scores, kind="stable")[:_BEST]
    boxes, scores, kinds = boxes[order], scores[order], kinds[order]
    truth = truth[truth[:, 0] >= 0]
    hits = np.zeros((len(boxes), len(IOUS)), bool)
    for kind in np.unique(truth[:, 0]):
        wanted, ours = truth[truth[:, 0] == kind][:, 1:], np.flatnonzero(kinds == kind)
        overlap = _overlap(boxes[ours], wanted)
        for level, least in enumerate(IOUS):
            free = np.ones(len(wanted), bool)
            for row, place in enumerate(ours):
                best = int(np.argmax(np.where(free, overlap[row], -1.0)))
                if free[best] and overlap[row, best] >= least:
                    free[best], hits[place, level] = False, True
    counts = {int(kind): int((truth[:, 0] == kind).sum()) for kind in np.unique(truth[:, 0])}
    return _Sample(scores=scores, kinds=kinds, hits=hits, truth=counts)


def _overlap(ours: Array, theirs: Array) -> Array:
    """Intersection over union, (k, m); a box is two opposite corners, in whatever order of axes."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    area = [np.clip(item[:, 2:] - item[:, :2], 0, None).prod(axis=-1) for item in (ours, theirs)]
    either = area[0][:, None] + area[1][None] - both
    return np.asarray(np.where(either > 0, both / np.maximum(either, 1e-30), 0.0))


def _mean_precision(rows: Array, levels: slice) -> float:
    totals: dict[int, int] = {}
    for sample in rows:
        for kind, count in sample.truth.items():
            totals[kind] = totals.get(kind, 0) + count
    if not totals:
        return float("nan")
    scores = np.concatenate([sample.scores for sample in rows])
    kinds = np.concatenate([sample.kinds for sample in rows])
    hits = np.concatenate([sample.hits for sample in rows])[:, levels]
    return float(
        np.mean([_precision(scores[kinds == k], hits[kinds == k], count) for k, count in totals.items()])
    )


def _precision(scores: Array, hits: Array, total: int) -> float:
    """Average precision of one class, averaged over the levels of IoU."""
    ordered = hits[np.argsort(-scores, kind="stable")]
    if not len(ordered):
        return 0.0
    right = np.cumsum(ordered, axis=0)
    precision = right / np.arange(1, len(ordered) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    values = []
    for level in range(ordered.shape[1]):
        places = np.searchsorted(right[:, level] / total, _RECALLS, side="left")
        inside = places < len(ordered)
        values.append(np.where(inside, precision[np.minimum(places, len(ordered) - 1), level], 0.0).mean())
    return float(np.mean(values))
