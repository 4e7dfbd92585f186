"""The same attributes meant something else: Softmax over several axes, one-sided broadcasting, statistics."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import (
    attr_float,
    attr_int,
    attr_str,
    dims,
    has_attr,
    rank,
    refuse,
    required,
    static_shape,
    used_outputs,
)
from edgekit_converters.hub.upgrade.table import below

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less", "Greater")
_CONSUMING = (
    *("Abs", "Ceil", "Clip", "Elu", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Log", "Max", "Mean", "Min"),
    *(
        "Neg",
        "PRelu",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Sqrt",
        "Sum",
        "Tanh",
        "InstanceNormalization",
    ),
    *("Add", "Sub", "Mul", "Div", "BatchNormalization", "Dropout"),
)


@below(8, *_CONSUMING)
def consumed(node: ir.Node, b: Builder) -> Result:
    """`consumed_inputs` (1) was a hint about memory."""
    node.attributes.pop("consumed_inputs", None)
    return None


@below(13, "Softmax", "LogSoftmax", "Hardmax")
def softmax(node: ir.Node, b: Builder) -> Result:
    """Over the axis and all that follow it (1), over the axis alone (13)."""
    x, axis = required(node, 0), attr_int(node, "axis", 1)
    sizes = dims(x)
    if sizes is not None:
        axis = axis + len(sizes) if axis < 0 else axis
        if all(size == 1 for size in sizes[axis + 1 :]):
            return b(node.op_type, x, axis=axis)
        if all(size == 1 for size in sizes[axis:-1]):
            return b(node.op_type, x, axis=len(sizes) - 1)
    flat = b(node.op_type, b("Flatten", x, axis=axis), axis=1)
    return b("Reshape", flat, b.shape(x))


@below(7, *_ARITHMETIC)
def one_sided(node: ir.Node, b: Builder) -> Result:
    """`broadcast` and `axis` place the second operand (1); numpy's rule since 7."""
    a, c = required(node, 0), required(node, 1)
    axis, wide = attr_int(node, "axis", -1), attr_int(node, "broadcast")
    if not wide or not has_attr(node, "axis"):
        return b(node.op_type, a, c)
    size, own = rank(a), rank(c)
    if size is None or own is None:
        refuse(node, "broadcasts along an axis of a tensor of unknown rank", code="dynamic_shape")
    missing = size - (axis + size if axis < 0 else axis) - own
    if missing > 0:
        c = b("Unsqueeze", c, list(range(own, own + missing)))
    return b(node.op_type, a, c)


@below(7, "PRelu")
def slope(node: ir.Node, b: Builder) -> Result:
    """A slope for each channel (1); numpy's rule since 7."""
    x, weights = required(node, 0), required(node, 1)
    size = rank(x)
    if rank(weights) == 1 and static_shape(weights) != (1,) and size is not None and size > 2:
        weights = b("Unsqueeze", weights, list(range(1, size - 1)))
    return b("PRelu", x, weights)


@below(7, "Gemm")
def gemm(node: ir.Node, b: Builder) -> Result:
    """`broadcast` (1) is a matter of course since 7."""
    node.attributes.pop("broadcast", None)
    return None


@below(12, "Dropout")
def dropout(node: ir.Node, b: Builder) -> Result:
    """The ratio was an attribute, and there was no training (since 7), or a mark of it (before)."""
    x = required(node, 0)
    if len(node.outputs) < 2 or not used_outputs(node)[1]:
        return [x]
    kind = node.outputs[1].dtype or ir.DataType.BOOL
    ones = ir.tensor(np.ones(1, kind.numpy()))
    return [x, b("ConstantOfShape", b("Shape", x), value=ones)]


@below(9, "BatchNormalization")
def not_spatial(node: ir.Node, b: Builder) -> Result:
    """`spatial` 0 (1 to 8) has statistics for each element."""
    node.attributes.pop("is_test", None)
    spatial = node.attributes.pop("spatial", None)
    if spatial is None or spatial.as_int() == 1:
        return None
    x, scale, bias, mean, var = (required(node, index) for index in range(5))
    epsilon = attr_float(node, "epsilon", 1e-5)
    factor = b("Div", scale, b("Sqrt", b("Add", var, epsilon)))
    return [b("Add", b("Mul", b("Sub", x, mean), factor), bias), *([None] * (len(node.outputs) - 1))]


@below(14, "BatchNormalization")
def statistics(node: ir.Node, b: Builder) -> Result:
    """Saved statistics as outputs are of training (1 to 13)."""
    if any(used_outputs(node)[1:]):
        refuse(node, "gives out the statistics of training", code="unsupported_attribute")
    node.resize_outputs(1)
    return None


@below(4, "Concat")
def concat(node: ir.Node, b: Builder) -> Result:
    """The axis had a default (1)."""
    node.attributes["axis"] = ir.AttrInt64("axis", attr_int(node, "axis", 1))
    return None


@below(6, "Selu")
def selu(node: ir.Node, b: Builder) -> Result:
    """The defaults had fewer digits (1)."""
    alpha, gamma = attr_float(node, "alpha", 1.6732), attr_float(node, "gamma", 1.0507)
    return b("Selu", required(node, 0), alpha=alpha, gamma=gamma)


@below(2, "LpPool", "GlobalLpPool")
def norm(node: ir.Node, b: Builder) -> Result:
    """p was a float (1)."""
    p = attr_float(node, "p", 2.0)
    if p != int(p):
        refuse(node, f"the norm {p} is not supported", code="unsupported_attribute")
    node.attributes["p"] = ir.AttrInt64("p", int(p))
    return None


@below(7, "RNN", "GRU", "LSTM")
def whole_sequence(node: ir.Node, b: Builder) -> Result:
    """`output_sequence` (1) said whether the first output is wanted."""
    node.attributes.pop("output_sequence", None)
    return None


@below(11, "Scatter")
def scatter(node: ir.Node, b: Builder) -> Result:
    """Scatter is ScatterElements since 11."""
    data, indices, updates = (required(node, index) for index in range(3))
    return b("ScatterElements", data, indices, updates, axis=attr_int(node, "axis"))


@below(16, "RoiAlign")
def rois(node: ir.Node, b: Builder) -> Result:
    """The default place of samples was another one (10)."""
    mode = attr_str(node, "coordinate_transformation_mode", "output_half_pixel")
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", mode)
    return None


@below(20, "GridSample")
def grid_mode(node: ir.Node, b: Builder) -> Result:
    """bilinear and bicubic are linear and cubic since 20."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(attr_str(node, "mode", "bilinear"))
    if mode is not None:
        node.attributes["mode"] = ir.AttrString("mode", mode)
    return None


@below(21, "GroupNormalization")
def groups(node: ir.Node, b: Builder) -> Result:
    """Scale and bias for each group (18) became one for each channel (21)."""
    x = required(node, 0)
    count, sizes = attr_int(node, "num_groups"), dims(x)
    if sizes is None or sizes[1] is None or sizes[1] % count:
        refuse(node, "the number of channels is not known", code="dynamic_shape")
    each = sizes[1] // count
    wide = [b.reshape(b("Expand", b.reshape(required(node, i), count, 1), [count, each]), -1) for i in (1, 2)]
    return b.again(node, x, *wide)
