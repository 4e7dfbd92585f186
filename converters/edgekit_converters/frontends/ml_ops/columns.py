"""Ops that work column by column: `Scaler`, `Normalizer`, `Binarizer`, `Imputer`, `FeatureVectorizer`,
`ArrayFeatureExtractor`.
"""

from __future__ import annotations

import numpy as np

from edgekit_converters.frontends.ml_ops.base import MlNode


def scaler(n: MlNode) -> list[str]:
    """(x - offset) * scale."""
    x = n.floats()
    offset, scale = (n.numbers(name).astype(np.float32) for name in ("offset", "scale"))
    if offset.any():
        x = n.e.op("Sub", x, n.e.constant(offset))
    if len(scale) and (scale != 1).any():
        x = n.e.op("Mul", x, n.e.constant(scale))
    return [x]


def normalizer(n: MlNode) -> list[str]:
    """Rows divided by their largest value, sum of magnitudes or length; a row of zeros stays."""
    x, e = n.floats(), n.e
    kind = n.attribute("norm", "MAX")
    if kind == "MAX":
        size = e.reduce("ReduceMax", x, [1])
    elif kind == "L1":
        size = e.reduce("ReduceSum", e.op("Abs", x), [1])
    elif kind == "L2":
        size = e.op("Sqrt", e.reduce("ReduceSum", e.op("Mul", x, x), [1]))
    else:
        raise n.refusal(f"has norm {kind}", code="unsupported_attribute")
    zero = e.op("Equal", size, e.constant(0, np.float32))
    return [e.op("Div", x, e.op("Where", zero, e.constant(1, np.float32), size))]


def binarizer(n: MlNode) -> list[str]:
    """One where x is above the threshold."""
    dtype = n.dtype(n.inputs[0])
    limit = n.e.constant(n.attribute("threshold", 0.0), dtype)
    return [n.e.cast(n.e.op("Greater", n.inputs[0], limit), dtype)]


def imputer(n: MlNode) -> list[str]:
    """The replaced value (often NaN) gives way to the column's."""
    x, e = n.inputs[0], n.e
    dtype = n.dtype(x)
    whole = dtype.kind in "iu"
    values = n.numbers("imputed_value_int64s" if whole else "imputed_value_floats").astype(dtype)
    old = n.attribute("replaced_value_int64" if whole else "replaced_value_float", 0)
    hit = e.is_nan(x) if not whole and np.isnan(old) else e.op("Equal", x, e.constant(old, dtype))
    return [e.op("Where", hit, e.constant(values), x)]


def vectorizer(n: MlNode) -> list[str]:
    """All inputs beside each other, in float32, cut or filled to their dimensions."""
    given = [int(item) for item in n.numbers("inputdimensions")]
    parts = []
    for index, name in enumerate(n.inputs):
        shape = n.shape(name)
        if given and (shape is None or len(shape) != 2 or shape[1] != given[index]):
            raise n.refusal("changes the width of its inputs", code="unsupported_attribute")
        parts.append(n.floats(index))
    return [n.e.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]]


def extractor(n: MlNode) -> list[str]:
    """Columns of the last axis; a vector counts as one row."""
    x, index = n.inputs
    shape = n.shape(x)
    if shape is None:
        raise n.refusal("takes a tensor of unknown rank", code="dynamic_shape")
    if len(shape) == 1:
        x = n.e.reshape(x, [1, -1])
    return [n.e.op("Gather", x, n.e.reshape(index, [-1]), axis=max(1, len(shape) - 1))]


REWRITES = {
    "ArrayFeatureExtractor": extractor,
    "Binarizer": binarizer,
    "FeatureVectorizer": vectorizer,
    "Imputer": imputer,
    "Normalizer": normalizer,
    "Scaler": scaler,
}
