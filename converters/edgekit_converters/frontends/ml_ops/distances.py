"""onnxruntime's `CDist`, which skl2onnx writes for nearest neighbours: distances of all pairs of rows."""

from __future__ import annotations

from edgekit_converters.frontends.ml_ops.base import MlNode


def cdist(n: MlNode) -> list[str]:
    """(N, M) distances between the rows of two matrices, from their differences: nothing cancels."""
    e = n.e
    metric = n.attribute("metric", "sqeuclidean")
    if metric not in ("euclidean", "sqeuclidean"):
        raise n.refusal(f"has metric {metric}", code="unsupported_attribute")
    gap = e.op("Sub", e.unsqueeze(n.inputs[0], [1]), e.unsqueeze(n.inputs[1], [0]))
    square = e.reduce("ReduceSum", e.op("Mul", gap, gap), [2], keep=False)
    return [e.op("Sqrt", square) if metric == "euclidean" else square]


REWRITES = {"CDist": cdist}
