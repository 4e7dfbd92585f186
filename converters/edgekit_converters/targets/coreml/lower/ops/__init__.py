"""One module a family of ONNX ops; importing this package registers them all."""

from __future__ import annotations

from edgekit_converters.targets.coreml.lower.ops import (
    activation,
    arithmetic,
    bits,
    conv,
    gather,
    matmul,
    norm,
    pool,
    quant,
    recurrent,
    reduce,
    resize,
    shape,
    slice_pad,
)

__all__ = [
    "activation",
    "arithmetic",
    "bits",
    "conv",
    "gather",
    "matmul",
    "norm",
    "pool",
    "quant",
    "recurrent",
    "reduce",
    "resize",
    "shape",
    "slice_pad",
]
