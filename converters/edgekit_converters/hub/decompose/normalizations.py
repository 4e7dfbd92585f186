"""Normalizations as subtraction of a mean and division by a deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_float, attr_int, axis_of, dims, operand, rank, required

_FLOAT = ir.DataType.FLOAT


def normalised(
    b: Builder, x: ir.Value, axes: Sequence[int], epsilon: float
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(x − mean)/√(variance + ε) over `axes`, the mean, and 1/√(variance + ε)."""
    mean = b("ReduceMean", x, list(axes), keepdims=1)
    centred = b("Sub", x, mean)
    variance = b("ReduceMean", b("Mul", centred, centred), list(axes), keepdims=1)
    inverse = b("Div", 1.0, b("Sqrt", b("Add", variance, epsilon)))
    return b("Mul", centred, inverse), mean, inverse


@rule("LayerNormalization")
def layer_normalization(node: ir.Node, b: Builder) -> Result:
    """Over the axis and all after it; computed in float32 where the specification says so."""
    x, scale, bias = required(node, 0), required(node, 1), operand(node, 2)
    size = rank(x)
    if size is None:
        return None
    wide = b.cast(x, ir.DataType(attr_int(node, "stash_type", int(_FLOAT))))
    axes = range(axis_of(node, size, default=-1), size)
    unit, mean, inverse = normalised(b, wide, axes, attr_float(node, "epsilon", 1e-5))
    y = b("Mul", b.cast(unit, x.dtype), scale)
    y = y if bias is None else b("Add", y, bias)
    return [y, mean, inverse][: len(node.outputs)]


@rule("InstanceNormalization")
def instance_normalization(node: ir.Node, b: Builder) -> Result:
    """Over all pixels of a channel."""
    x, size = required(node, 0), rank(required(node, 0))
    if size is None:
        return None
    unit, _, _ = normalised(b, x, range(2, size), attr_float(node, "epsilon", 1e-5))
    ones = [1] * (size - 2)
    scale, bias = (b.reshape(required(node, index), -1, *ones) for index in (1, 2))
    return b("Add", b("Mul", unit, scale), bias)


@rule("GroupNormalization")
def group_normalization(node: ir.Node, b: Builder) -> Result:
    """Over the channels of a group and all their pixels."""
    x, size = required(node, 0), rank(required(node, 0))
    if size is None:
        return None
    wide = b.cast(x, ir.DataType(attr_int(node, "stash_type", int(_FLOAT))))
    grouped = b.reshape(wide, b.size(x, 0), attr_int(node, "num_groups"), -1)
    unit, _, _ = normalised(b, grouped, [2], attr_float(node, "epsilon", 1e-5))
    whole = b.cast(b("Reshape", unit, b.shape(x)), x.dtype)
    ones = [1] * (size - 2)
    scale, bias = (b.reshape(required(node, index), -1, *ones) for index in (1, 2))
    return b("Add", b("Mul", whole, scale), bias)


@rule("BatchNormalization")
def batch_normalization(node: ir.Node, b: Builder) -> Result:
    """A factor and an offset for each channel (inference)."""
    x, size = required(node, 0), rank(required(node, 0))
    if size is None:
        return None
    scale, bias, mean, variance = (required(node, index) for index in range(1, 5))
    factor = b("Div", scale, b("Sqrt", b("Add", variance, attr_float(node, "epsilon", 1e-5))))
    offset = b("Sub", bias, b("Mul", mean, factor))
    ones = [1] * (size - 2)
    wide = [b.cast(b.reshape(item, -1, *ones) if ones else item, x.dtype) for item in (factor, offset)]
    return b("Add", b("Mul", x, wide[0]), wide[1])


@rule("LRN")
def local_response(node: ir.Node, b: Builder) -> Result:
    """x over a power of the sum of squares of neighbouring channels."""
    x, width = required(node, 0), attr_int(node, "size")
    sizes = dims(x)
    if sizes is None or sizes[1] is None:
        return None
    before = (width - 1) // 2
    pads = [0] * (2 * len(sizes))
    pads[1], pads[len(sizes) + 1] = before, width - 1 - before
    padded = b("Pad", b("Mul", x, x), pads, b.scalar(0, x))
    whole = b.slice(padded, 1, 0, sizes[1])
    for start in range(1, width):
        whole = b("Add", whole, b.slice(padded, 1, start, start + sizes[1]))
    alpha, beta = attr_float(node, "alpha", 1e-4), attr_float(node, "beta", 0.75)
    base = b("Add", b("Mul", whole, alpha / width), attr_float(node, "bias", 1.0))
    return b("Div", x, b("Pow", base, beta))


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(node: ir.Node, b: Builder) -> Result:
    """A reduction over all pixels."""
    x, size = required(node, 0), rank(required(node, 0))
    if size is None:
        return None
    axes = list(range(2, size))
    if node.op_type != "GlobalLpPool":
        return b("ReduceMean" if node.op_type == "GlobalAveragePool" else "ReduceMax", x, axes, keepdims=1)
    p = float(attr_int(node, "p", 2))
    if math.isclose(p, 2.0):
        return b("Sqrt", b("ReduceSum", b("Mul", x, x), axes, keepdims=1))
    whole = b("ReduceSum", b("Pow", b("Abs", x), p), axes, keepdims=1)
    return b("Pow", whole, 1 / p)
