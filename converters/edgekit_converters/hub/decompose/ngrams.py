"""TfIdfVectorizer over whole numbers: every window of the input compared with every n-gram of the pool.

Specification: Operators.md, TfIdfVectorizer 9. Sizes must be known.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    Array,
    attr_floats,
    attr_int,
    attr_ints,
    attr_str,
    required,
    static_shape,
)


@rule("TfIdfVectorizer")
def tf_idf(node: ir.Node, b: Builder) -> Result:
    """Counts of n-grams, weighted, and put at their places by a matrix."""
    x, pool, places = required(node, 0), attr_ints(node, "pool_int64s"), attr_ints(node, "ngram_indexes")
    sizes, starts = static_shape(x), attr_ints(node, "ngram_counts")
    if sizes is None or pool is None or places is None or starts is None or 0 in sizes:
        return None
    rows = b.cast(x if len(sizes) == 2 else b.reshape(x, 1, sizes[0]), ir.DataType.INT64)
    ends = (*starts[1:], len(pool))
    counts: list[ir.Value] = []
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        grams = np.asarray(pool[start:end], np.int64).reshape(-1, index + 1)
        if len(grams):
            counts.append(_counted(node, b, rows, sizes, grams))
    whole = counts[0] if len(counts) == 1 else b("Concat", *counts, axis=1)
    mode, weights = attr_str(node, "mode"), attr_floats(node, "weights")
    if mode == "IDF":
        whole = b("Min", whole, 1.0)
    matrix = np.zeros((len(places), max(places) + 1), np.float32)
    matrix[np.arange(len(places)), places] = 1.0 if mode == "TF" or weights is None else weights
    found = b("MatMul", whole, b.const(matrix))
    return found if len(sizes) == 2 else b("Squeeze", found, [0])


def _counted(node: ir.Node, b: Builder, rows: ir.Value, sizes: tuple[int, ...], grams: Array) -> ir.Value:
    """How often each of `grams` (count, n) stands in each row, with every allowed skip: (rows, count)."""
    count, length = grams.shape
    none = b.const(np.zeros((1, count), np.float32))
    found = b("Expand", none, [1 if len(sizes) == 1 else sizes[0], count])
    if not attr_int(node, "min_gram_length") <= length <= attr_int(node, "max_gram_length"):
        return found
    for skip in range(1 if length == 1 else attr_int(node, "max_skip_count") + 1):
        windows = sizes[-1] - (length - 1) * (skip + 1)
        if windows < 1:
            break
        same: ir.Value | None = None
        for place in range(length):
            start = place * (skip + 1)
            part = b("Unsqueeze", b.slice(rows, 1, start, start + windows), [2])
            hit = b("Equal", part, b.const(grams[:, place].reshape(1, 1, -1)))
            same = hit if same is None else b("And", same, hit)
        assert same is not None
        found = b("Add", found, b("ReduceSum", b.cast(same, ir.DataType.FLOAT), [1], keepdims=0))
    return found
