"""Axes, sizes and blocks as the accelerator wants them.

1. a softmax along another axis is transposed to the width and back;
2. an ArgMax is taken along the third axis from the end, which it keeps;
3. a Resize to given sizes says the scales instead;
4. DepthToSpace, where the accelerator has none, is reshaped, transposed and reshaped;
5. one transpose behind another is one, or none.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import (
    attr_int,
    attr_ints,
    attr_str,
    axis_of,
    operand,
    required,
    static_shape,
)
from edgekit_converters.targets.tidl.checks import Known, argmax_axis, softmax_axis
from edgekit_converters.targets.tidl.rewrites.table import rewrite


@rewrite("Softmax")
def softmax_to_width(node: ir.Node, build: Builder) -> Result:
    """Along an axis that is neither height nor width."""
    shape = static_shape(node.inputs[0])
    if shape is None or not softmax_axis(node, Known()):
        return None
    order = list(range(len(shape)))
    axis = axis_of(node, len(shape), default=-1)
    order[axis], order[-1] = order[-1], order[axis]
    turned = build("Transpose", node.inputs[0], perm=order)
    return build("Transpose", build("Softmax", turned, axis=-1), perm=order)


@rewrite("ArgMax")
def argmax_to_third_axis(node: ir.Node, build: Builder) -> Result:
    """Along any other axis, or dropping it."""
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if shape is None or result is None or len(shape) < 2 or not argmax_axis(node, Known()):
        return None
    axis = axis_of(node, len(shape))
    if axis == 0 or attr_int(node, "select_last_index", 0):
        return None
    rest = [item for item in range(1, len(shape)) if item != axis]
    value = required(node, 0)
    if axis != 1:
        value = build("Transpose", value, perm=[0, axis, *rest])
    block = build.reshape(value, shape[0], shape[axis], prod(shape[item] for item in rest), 1)
    return build.reshape(build("ArgMax", block, axis=1, keepdims=1), result)


@rewrite("Resize")
def sizes_to_scales(node: ir.Node, build: Builder) -> Result:
    """Sizes that are whole multiples of the input's."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if operand(node, 3) is None or before is None or after is None:
        return None
    if attr_str(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    if any(new % old for new, old in zip(after, before, strict=True)):
        return None
    scales = np.array([new / old for new, old in zip(after, before, strict=True)], np.float32)
    return build.again(node, node.inputs[0], None, scales, drop=("axes",))


@rewrite("DepthToSpace")
def depth_to_space_by_transposes(node: ir.Node, build: Builder) -> Result:
    """Blocks of channels spread over height and width."""
    shape = static_shape(node.inputs[0])
    if shape is None or len(shape) != 4:
        return None
    n, channels, height, width = shape
    block = attr_int(node, "blocksize")
    depth = channels // (block * block)
    if attr_str(node, "mode", "DCR") == "DCR":
        apart, order = (n, block, block, depth, height, width), [0, 3, 4, 1, 5, 2]
    else:
        apart, order = (n, depth, block, block, height, width), [0, 1, 4, 2, 5, 3]
    turned = build("Transpose", build.reshape(required(node, 0), apart), perm=order)
    return build.reshape(turned, n, depth, height * block, width * block)


@rewrite("Transpose")
def transposes_to_one(node: ir.Node, build: Builder) -> Result:
    """Behind another transpose."""
    maker = required(node, 0).producer()
    if maker is None or maker.op_type != "Transpose":
        return None
    first, second = attr_ints(maker, "perm"), attr_ints(node, "perm")
    if first is None or second is None:
        return None
    order = [first[axis] for axis in second]
    return required(maker, 0) if order == sorted(order) else build("Transpose", maker.inputs[0], perm=order)
