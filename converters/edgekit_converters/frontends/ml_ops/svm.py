"""`SVMClassifier` and `SVMRegressor`: the kernel as matrix products, votes and Platt's sigmoid.

Probabilities of more than two classes come from an iteration that stops at a tolerance: refused, with
the scores as the way out.
"""

from __future__ import annotations

import numpy as np

from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.ml_ops.base import MlNode, arg_max, label_count, labels, transformed
from edgekit_converters.frontends.ml_ops.linear import binary


def _kernel(n: MlNode, vectors: Array) -> str:
    """(N, vectors) kernel values."""
    e, x = n.e, n.floats()
    kind = n.attribute("kernel_type", "LINEAR")
    gamma, coef0, degree = (float(item) for item in (*n.numbers("kernel_params"), 0.0, 0.0, 0.0)[:3])
    product = e.op("MatMul", x, e.constant(vectors.T, np.float32))
    if kind == "LINEAR":
        return product
    if kind == "RBF":
        return e.op("Exp", e.op("Mul", _distances(n, x, vectors), e.constant(-gamma, np.float32)))
    inner = e.op("Add", e.op("Mul", product, e.constant(gamma, np.float32)), e.constant(coef0, np.float32))
    if kind == "POLY":
        return e.op("Pow", inner, e.constant(degree, np.float32))
    if kind == "SIGMOID":
        return e.op("Tanh", inner)
    raise n.refusal(f"has kernel {kind}", code="unsupported_attribute")


def _distances(n: MlNode, x: str, vectors: Array) -> str:
    """Squared distances, from the differences themselves: nothing cancels."""
    gap = n.e.op("Sub", n.e.unsqueeze(x, [1]), n.e.constant(vectors[None], np.float32))
    return n.e.reduce("ReduceSum", n.e.op("Mul", gap, gap), [2], keep=False)


def _vectors(n: MlNode, count: int) -> Array:
    given = n.numbers("support_vectors").astype(np.float32)
    if not count or len(given) % count:
        raise n.refusal("has support vectors that do not fit their number", code="corrupt_source")
    return given.reshape(count, -1)


def regressor(n: MlNode) -> list[str]:
    """SVMRegressor, one-class included → (N, 1)."""
    e, count = n.e, int(n.attribute("n_supports", 0))
    coefficients = n.numbers("coefficients").astype(np.float32)
    rho = float(n.numbers("rho")[0]) if len(n.numbers("rho")) else 0.0
    values = _kernel(n, _vectors(n, count)) if count else n.floats()
    score = e.op("MatMul", values, e.constant(coefficients.reshape(-1, 1)))
    score = e.op("Add", score, e.constant(rho, np.float32))
    if n.attribute("one_class", 0):
        above = e.op("Greater", score, e.constant(0, np.float32))
        return [e.op("Where", above, e.constant(1, np.float32), e.constant(-1, np.float32))]
    return [transformed(n, score)]


def classifier(n: MlNode) -> list[str]:
    """SVMClassifier → labels and scores: one a pair of classes, or two probabilities."""
    per_class = [int(item) for item in n.numbers("vectors_per_class")]
    if not per_class:
        return _linear(n)
    count = len(per_class)
    scores = _pair_scores(n, per_class)
    index = arg_max(n.e, _votes(n, scores, count))
    if not len(n.numbers("prob_a")):
        if count == 2:
            return [labels(n, index), transformed(n, n.e.op("Concat", scores, n.e.op("Neg", scores), axis=1))]
        return [labels(n, index), transformed(n, scores)]
    if count > 2:
        raise n.refusal(
            "gives probabilities of more than two classes, which an iteration with a tolerance finds",
            remedy="train SVC with probability=False, or calibrate with CalibratedClassifierCV",
            code="unsupported_attribute",
        )
    return _probabilities(n, scores)


def _linear(n: MlNode) -> list[str]:
    """Without support vectors: one row of coefficients a class."""
    count = label_count(n)
    coefficients = n.numbers("coefficients").astype(np.float32)
    rows = count if count > 2 else 1
    if len(coefficients) % rows:
        raise n.refusal("has coefficients that do not fit its classes", code="corrupt_source")
    product = n.e.op("MatMul", n.floats(), n.e.constant(coefficients.reshape(rows, -1).T))
    rho = n.numbers("rho").astype(np.float32)[:rows]
    scores = n.e.op("Add", product, n.e.constant(rho[None]))
    if rows == 1:
        return binary(n, scores)
    return [labels(n, arg_max(n.e, scores)), transformed(n, scores)]


def _pair_scores(n: MlNode, per_class: list[int]) -> str:
    """(N, pairs) decision values, pairs in the order (0,1), (0,2) …"""
    total, count = sum(per_class), len(per_class)
    values = _kernel(n, _vectors(n, total))
    coefficients = n.numbers("coefficients").astype(np.float32).reshape(count - 1, total)
    starts = np.cumsum([0, *per_class])
    weights = np.zeros((total, count * (count - 1) // 2), np.float32)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    for place, (i, j) in enumerate(pairs):
        weights[starts[i] : starts[i + 1], place] = coefficients[j - 1, starts[i] : starts[i + 1]]
        weights[starts[j] : starts[j + 1], place] = coefficients[i, starts[j] : starts[j + 1]]
    rho = n.numbers("rho").astype(np.float32)
    return n.e.op("Add", n.e.op("MatMul", values, n.e.constant(weights)), n.e.constant(rho[None]))


def _votes(n: MlNode, scores: str, count: int) -> str:
    """(N, classes) how many pairs each class won."""
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    won = np.zeros((len(pairs), count), np.float32)
    start = np.zeros((1, count), np.float32)
    for place, (i, j) in enumerate(pairs):
        won[place, i], won[place, j] = 1, -1
        start[0, j] += 1
    first = n.e.cast(n.e.op("Greater", scores, n.e.constant(0, np.float32)), np.float32)
    return n.e.op("Add", n.e.op("MatMul", first, n.e.constant(won)), n.e.constant(start))


def _probabilities(n: MlNode, scores: str) -> list[str]:
    """Two classes: Platt's sigmoid, kept within [1e-7, 1 - 1e-7] as libsvm does."""
    e = n.e
    a, b = (float(n.numbers(name)[0]) for name in ("prob_a", "prob_b"))
    inner = e.op("Add", e.op("Mul", scores, e.constant(a, np.float32)), e.constant(b, np.float32))
    low, high = e.constant(1e-7, np.float32), e.constant(1 - 1e-7, np.float32)
    first = e.op("Min", e.op("Max", e.op("Sigmoid", e.op("Neg", inner)), low), high)
    both = e.op("Concat", first, e.op("Sub", e.constant(1, np.float32), first), axis=1)
    return [labels(n, arg_max(e, both)), both]


REWRITES = {"SVMClassifier": classifier, "SVMRegressor": regressor}
