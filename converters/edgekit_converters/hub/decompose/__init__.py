"""Rare operators in terms of common ones, one family a file.

A decomposition gets a node in its canonical form (opset 21) and a builder; it returns what stands
for the node's outputs, or None when it does not apply (a size is not known, say). It must compute
the same numbers: tests run both forms in onnxruntime.
"""

from __future__ import annotations

from edgekit_converters.hub.decompose import (
    activations,
    arithmetic,
    blocks,
    convolutions,
    cropping,
    folding,
    functions,
    indexing,
    integers,
    linear,
    ngrams,
    normalizations,
    pools,
    recurrent,
    reductions,
    resize,
    sampling,
)
from edgekit_converters.hub.decompose.table import DECOMPOSITIONS

__all__ = [
    "DECOMPOSITIONS",
    "activations",
    "arithmetic",
    "blocks",
    "convolutions",
    "cropping",
    "folding",
    "functions",
    "indexing",
    "integers",
    "linear",
    "ngrams",
    "normalizations",
    "pools",
    "recurrent",
    "reductions",
    "resize",
    "sampling",
]
