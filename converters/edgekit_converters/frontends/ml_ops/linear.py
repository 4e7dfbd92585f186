"""`LinearClassifier` and `LinearRegressor`: one matrix product, in float32 as the source's runtime has it."""

from __future__ import annotations

import numpy as np

from edgekit_converters.frontends.ml_ops.base import MlNode, arg_max, label_count, labels, transformed


def _scores(n: MlNode, rows: int) -> str:
    coefficients = n.numbers("coefficients").astype(np.float32)
    if not rows or len(coefficients) % rows:
        raise n.refusal("has coefficients that do not fit its classes", code="corrupt_source")
    product = n.e.op("MatMul", n.floats(), n.e.constant(coefficients.reshape(rows, -1).T))
    offset = n.numbers("intercepts").astype(np.float32)
    return n.e.op("Add", product, n.e.constant(offset[None])) if offset.any() else product


def regressor(n: MlNode) -> list[str]:
    """LinearRegressor → its predictions (N, targets)."""
    return [transformed(n, _scores(n, int(n.attribute("targets", 1))))]


def classifier(n: MlNode) -> list[str]:
    """LinearClassifier → labels (N,) and scores (N, classes)."""
    count = label_count(n)
    rows = len(n.numbers("intercepts")) or count
    scores = _scores(n, rows)
    if rows == 1 and count == 2:
        return binary(n, scores)
    return [labels(n, arg_max(n.e, scores)), transformed(n, scores)]


def binary(n: MlNode, score: str, *, share: bool = True, border: float = 0.0) -> list[str]:
    """Labels and two columns from a single score (N, 1); above `border` it is the second class.

    Without LOGISTIC runtimes leave the score as it is: beside ``1 - score`` if it is a `share`, else
    beside ``-score``, whatever other post_transform is asked for.
    """
    e = n.e
    index = e.cast(e.op("Greater", score, e.constant(border, np.float32)), np.int64)
    if n.attribute("post_transform", "NONE") == "LOGISTIC":
        first, score = e.op("Sigmoid", e.op("Neg", score)), e.op("Sigmoid", score)
    else:
        first = e.op("Sub", e.constant(1, np.float32), score) if share else e.op("Neg", score)
    return [labels(n, e.reshape(index, [-1])), e.op("Concat", first, score, axis=1)]


REWRITES = {"LinearClassifier": classifier, "LinearRegressor": regressor}
