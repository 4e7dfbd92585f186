"""Sorting, selecting and counting: topk, argsort, non_zero, one_hot, non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel, undefined


def _order(x: Array, axis: int, ascending: object) -> Array:
    """Stable: the first of equal values comes first."""
    if bool(ascending):
        return np.asarray(np.argsort(x, axis=axis, kind="stable"))
    turned = np.flip(x, axis)
    last = x.shape[axis] - 1
    return np.asarray(last - np.flip(np.argsort(turned, axis=axis, kind="stable"), axis))


@kernel("argsort")
def _argsort(x: Array, axis: Array, ascending: Array) -> Array:
    return _order(x, int(axis), ascending).astype(np.int32)


@kernel("topk", moves=True)
def _topk(
    x: Array,
    k: Array,
    axis: Array,
    ascending: Array,
    sort: Any = True,
    return_indices: Any = True,
    output_indices_dtype: str = "int32",
) -> Any:
    """Sorted also where the definition allows any order."""
    along = int(axis)
    count = x.shape[along] if int(k) == -1 else int(k)
    found = np.take(_order(x, along, ascending), np.arange(count), axis=along)
    values = np.take_along_axis(x, found, axis=along)
    return (values, found.astype(str(output_indices_dtype))) if bool(return_indices) else values


@kernel("non_zero")
def _non_zero(x: Array) -> Array:
    return np.argwhere(x).astype(np.int32)


@kernel("one_hot", moves=True)
def _one_hot(
    indices: Array, one_hot_vector_size: Array, axis: Array, on_value: Array, off_value: Array
) -> Array:
    size, rank = int(one_hot_vector_size), indices.ndim + 1
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise undefined("one_hot", f"an index outside 0 to {size - 1}")
    at = int(axis) % rank
    shape = [1] * rank
    shape[at] = size
    hit = np.expand_dims(indices.astype(np.int64), at) == np.arange(size).reshape(shape)
    return np.where(hit, on_value, off_value)


@kernel("non_maximum_suppression")
def _suppress(
    boxes: Array,
    scores: Array,
    iou_threshold: Array,
    max_boxes: Array,
    per_class_suppression: Array,
    score_threshold: Array | None = None,
) -> tuple[Array, ...]:
    """Boxes are (x, y, width, height) around a centre; from iOS 17 on their number is the last axis.

    A box counts with its best class. Unused places hold zeros, and -1 as index; when no box passes
    `score_threshold` the best one is given all the same, as Core ML does.
    """
    newer = score_threshold is None
    if newer:
        boxes, scores = np.swapaxes(boxes, 1, 2), np.swapaxes(scores, 1, 2)
    size, number = int(max_boxes), boxes.shape[0]
    kept = np.zeros((number, size, 4), np.float32)
    kept_scores = np.zeros((number, size, scores.shape[2]), np.float32)
    indices, counts = np.full((number, size), -1, np.int32), np.zeros(number, np.int32)
    limit = -np.inf if score_threshold is None else float(score_threshold)
    for n in range(number):
        chosen = _chosen(boxes[n], scores[n], float(iou_threshold), limit, bool(per_class_suppression))[:size]
        count = counts[n] = len(chosen)
        kept[n, :count], kept_scores[n, :count] = boxes[n, chosen], scores[n, chosen]
        indices[n, :count] = chosen
    if newer:
        return np.swapaxes(kept, 1, 2), np.swapaxes(kept_scores, 1, 2), indices
    return kept, kept_scores, indices, counts


def _chosen(boxes: Array, scores: Array, iou: float, limit: float, by_class: bool) -> list[int]:
    best, label = scores.max(axis=-1), scores.argmax(axis=-1)
    order = [int(i) for i in np.argsort(-best, kind="stable")]
    found: list[int] = []
    for i in order:
        if best[i] < limit:
            break
        rivals = [j for j in found if not by_class or label[j] == label[i]]
        if all(_overlap(boxes[i], boxes[j]) <= iou for j in rivals):
            found.append(i)
    return found or order[:1]


def _overlap(a: Array, b: Array) -> float:
    """Intersection over union of two boxes around their centres."""
    shared = 1.0
    for i in (0, 1):
        low = max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2)
        high = min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2)
        shared *= max(0.0, float(high - low))
    union = float(a[2] * a[3] + b[2] * b[3]) - shared
    return shared / union if union > 0 else 0.0
