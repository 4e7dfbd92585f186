"""Averages and products as plain matrix products.

1. an average over the two axes of an image is a global pool; over other axes, or over a plane that is too
   large for a pool, it is a product with a column of equal shares. Axes that are not the last are transposed;
2. a Gemm that is no fully connected layer is MatMul and Add.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import (
    attr_float,
    attr_int,
    constant,
    front,
    ints,
    operand,
    rank,
    required,
    static_shape,
)
from edgekit_converters.targets.tidl.checks import MOST_PLANE, Known, gemm_parameters
from edgekit_converters.targets.tidl.rewrites.table import rewrite


@rewrite("ReduceMean")
def mean_to_global_pool(node: ir.Node, build: Builder) -> Result:
    """An average over height and width of an image, wherever its channels are."""
    shape, axes, result = static_shape(node.inputs[0]), _axes(node), static_shape(node.outputs[0])
    if shape is None or result is None or len(shape) != 4 or axes not in ((1, 2), (2, 3)):
        return None
    pooled = build("GlobalAveragePool", _axes_last(required(node, 0), build, len(shape), axes))
    return pooled if pooled.shape == result else build.reshape(pooled, result)


@rewrite("ReduceMean")
def mean_to_product(node: ir.Node, build: Builder) -> Result:
    """An average over some axes, but not all."""
    shape, axes, result = static_shape(node.inputs[0]), _axes(node), static_shape(node.outputs[0])
    if shape is None or result is None or not axes or axes == tuple(range(len(shape))):
        return None
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    value = _axes_last(required(node, 0), build, len(shape), axes)
    return _average(value, build, kept, tuple(shape[axis] for axis in axes), result)


@rewrite("GlobalAveragePool")
def large_average_to_product(node: ir.Node, build: Builder) -> Result:
    """A global pool over more than the accelerator averages in one go."""
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if shape is None or result is None or prod(shape[2:]) <= MOST_PLANE:
        return None
    return _average(required(node, 0), build, shape[:2], shape[2:], result)


@rewrite("Gemm")
def gemm_to_product_and_sum(node: ir.Node, build: Builder) -> Result:
    """Transposes, factors and odd biases on their own."""
    if not gemm_parameters(node, Known()):
        return None
    left, right, bias = required(node, 0), required(node, 1), operand(node, 2)
    left = build("Transpose", left, perm=[1, 0]) if attr_int(node, "transA", 0) else left
    right = build("Transpose", right, perm=[1, 0]) if attr_int(node, "transB", 0) else right
    made = _times(build, build("MatMul", left, right), attr_float(node, "alpha", 1.0))
    if bias is None:
        return made
    return build("Add", made, _times(build, bias, attr_float(node, "beta", 1.0)))


def _times(build: Builder, value: ir.Value, factor: float) -> ir.Value:
    known = constant(value)
    if factor == 1.0:
        return value
    return build("Mul", value, factor) if known is None else build.const(known * np.float32(factor))


def _axes_last(value: ir.Value, build: Builder, size: int, axes: tuple[int, ...]) -> ir.Value:
    order = [*(axis for axis in range(size) if axis not in axes), *axes]
    return value if order == sorted(order) else build("Transpose", value, perm=order)


def _average(
    value: ir.Value, build: Builder, kept: tuple[int, ...], gone: tuple[int, ...], result: tuple[int, ...]
) -> ir.Value:
    count = prod(gone)
    share = np.full((count, 1), 1 / count, np.float32)
    return build.reshape(build("MatMul", build.reshape(value, kept, count), share), result)


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    size, found = rank(node.inputs[0]), ints(operand(node, 1))
    return None if size is None or found is None else tuple(sorted(front(found, size)))
