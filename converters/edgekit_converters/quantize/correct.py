"""Bias correction: what rounding the weights does to a layer's mean output is taken back in its bias.

The mean error of output channel c is the rounding error of its weights times the mean of the inputs,
which the stored calibration has per channel; nothing is run. Padding is not looked at, so borders
count as if they were inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize.roles import integer


def bias_shift(node: ir.Node, error: Any, means: Any) -> Any:
    """What to add to the bias of `node` (float64, one per output channel), None where it has no place.

    `error` is quantized minus true weight; `means` the input's mean per channel (last axis of a
    matrix product, axis 1 of a convolution).
    """
    if means is None or node.op_type == "MatMul":
        return None
    error, means = error.astype(np.float64), np.asarray(means, np.float64)
    if node.op_type == "Gemm":
        matrix = error if integer(node, "transB", 0) else error.T
        return -(matrix @ means) if matrix.shape[1] == len(means) else None
    groups = integer(node, "group", 1)
    total = error.reshape(*error.shape[:2], -1).sum(axis=2)
    if node.op_type == "ConvTranspose":
        # (inputs, outputs of a group): every input position reaches a share of the outputs only.
        return None
    inputs = total.shape[1]
    if inputs * groups != len(means):
        return None
    per_group = total.reshape(groups, -1, inputs)
    return -np.einsum("gci,gi->gc", per_group, means.reshape(groups, inputs)).reshape(-1)
