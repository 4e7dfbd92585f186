"""What an operator does in training only: Dropout passes, BatchNormalization takes given statistics."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import (
    attr_float,
    attr_int,
    constant,
    operand,
    rank,
    refuse,
    required,
    used_outputs,
)
from edgekit_converters.hub.normal.table import rule


@rule("Dropout")
def dropout(node: ir.Node, b: Builder) -> Result:
    """Its input; the mask is all true. In training with a ratio above zero it is random: refused."""
    x, ratio, training = required(node, 0), operand(node, 1), operand(node, 2)
    mode, rate = constant(training), constant(ratio)
    active = training is not None and (mode is None or bool(mode.reshape(())))
    # Without a ratio it is one half.
    if active and (rate is None or float(rate.reshape(())) != 0):
        refuse(node, "drops values at random (training mode)", code="unsupported_attribute")
    if not (len(node.outputs) > 1 and used_outputs(node)[1]):
        return [x]
    return [x, b("ConstantOfShape", b.shape(x), value=ir.tensor(np.ones(1, bool)))]


@rule("BatchNormalization")
def batch_norm(node: ir.Node, b: Builder) -> Result:
    """Training mode written out: statistics of the batch, running means (14)."""
    if not attr_int(node, "training_mode"):
        if any(used_outputs(node)[1:]):
            refuse(node, "gives out the statistics of training, but does not train", code="corrupt_source")
        node.attributes.pop("training_mode", None)
        node.attributes.pop("momentum", None)
        node.resize_outputs(1)
        return None
    x, scale, bias, mean, var = (required(node, index) for index in range(5))
    size = rank(x)
    if size is None:
        refuse(node, "in training mode needs the rank", code="dynamic_shape")
    axes, ones = [0, *range(2, size)], [1] * (size - 2)
    batch_mean = b("ReduceMean", x, axes, keepdims=1)
    centred = b("Sub", x, batch_mean)
    batch_var = b("ReduceMean", b("Mul", centred, centred), axes, keepdims=1)
    unit = b("Div", centred, b("Sqrt", b("Add", batch_var, attr_float(node, "epsilon", 1e-5))))
    y = b("Add", b("Mul", unit, b.reshape(scale, -1, *ones)), b.reshape(bias, -1, *ones))
    keep = attr_float(node, "momentum", 0.9)
    running = [
        b("Add", b("Mul", old, keep), b("Mul", b.cast(b.reshape(new, -1), old.dtype), 1 - keep))
        for old, new in ((mean, batch_mean), (var, batch_var))
    ]
    return [y, *running]
