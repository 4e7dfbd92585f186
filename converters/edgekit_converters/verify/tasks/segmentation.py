"""Segmentation: mean intersection over union, and the share of right pixels.

The mean goes over the classes that occur in the labels or in the answers (Pascal VOC's definition,
summed over all samples before dividing).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit_converters.verify.tasks.paired import Figure, mean

Array = NDArray[Any]
IGNORED = 255
"""The label of pixels that nobody judges."""


def segmentation_figures(name: str, source: Array, labels: Array, where: str) -> tuple[Figure, ...]:
    """Figures for output `name` of shape (n, h, w, classes) or (n, classes, h, w) or (n, h, w) of class
    numbers; `labels` are (n, h, w) class numbers, 255 where nothing is judged.

    Raises:
        DataError: labels whose size is not that of the answers.
    """
    axis = _class_axis(source, labels, where)
    classes = int(max(labels[labels != IGNORED].max(initial=0) + 1, source.shape[axis] if axis else 0))

    def answers(outputs: Mapping[str, Array]) -> Array:
        values = outputs[name]
        return np.asarray(values if axis is None else values.argmax(axis)).astype(np.int64)

    def counts(outputs: Mapping[str, Array]) -> Array:
        found = answers(outputs)
        judged = labels != IGNORED
        rows = np.zeros((len(found), classes, 2), np.int64)
        for kind in range(classes):
            ours, theirs = (found == kind) & judged, labels == kind
            rows[:, kind, 0] = (ours & theirs).sum(axis=(1, 2))
            rows[:, kind, 1] = (ours | theirs).sum(axis=(1, 2))
        return rows

    def pixels(outputs: Mapping[str, Array]) -> Array:
        judged = labels != IGNORED
        right = ((answers(outputs) == labels) & judged).sum(axis=(1, 2))
        return np.asarray(right / np.maximum(1, judged.sum(axis=(1, 2))))

    return (
        Figure(name="miou", output=name, rows=counts, value=_miou),
        Figure(name="pixel_accuracy", output=name, rows=pixels, value=mean),
    )


def _miou(rows: Array) -> float:
    both, either = rows.sum(axis=0).T
    seen = either > 0
    return float((both[seen] / either[seen]).mean()) if seen.any() else float("nan")


def _class_axis(source: Array, labels: Array, where: str) -> int | None:
    """Where the classes stand; None when the output holds class numbers already."""
    if source.shape == labels.shape:
        return None
    if source.ndim == 4 and source.shape[:3] == labels.shape:
        return 3
    if source.ndim == 4 and (source.shape[0], *source.shape[2:]) == labels.shape:
        return 1
    raise DataError(
        f"labels of shape {labels.shape} for an output of shape {source.shape}",
        where=where,
        remedy="give one class number a pixel: (n, height, width) of the output",
        code="wrong_shape",
    )
