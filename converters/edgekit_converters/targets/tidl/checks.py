"""The tests behind the rules' limits (`check` in ``hw_profiles/rules/tidl-*.toml``): does a node break one?

Each takes a node of the rewritten graph and what is known of ranges, and says True where the accelerator
does not take the node. Which of them a SoC makes, under which reason code and with which remedy, is data
of its rules file. The legacy import of AM57x has its own in `legacy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log2

import onnx_ir as ir

from edgekit_converters.hub.nodes import (
    attr_float,
    attr_int,
    attr_ints,
    attr_str,
    axis_of,
    constant,
    ints,
    is_float,
    operand,
    rank,
    static_shape,
)

MOST_PLANE = 1024
_DEPTHWISE = {(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)}
_POOLS = {(1, 1), (1, 2), (2, 2), (3, 1), (3, 2)}
_DECONVOLUTIONS = (2, 3, 4)
_HALF = ("half_pixel", "pytorch_half_pixel")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a check may look at beside the node: (low, high) by tensor, where it was measured."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


Check = Callable[[ir.Node, Known], bool]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Register a check under its function's name."""
    CHECKS[function.__name__] = function
    return function


def kernel(node: ir.Node) -> tuple[int, ...]:
    """The window of a convolution or pool, one-dimensional ones as wide and one high."""
    found = attr_ints(node, "kernel_shape")
    if found is None:
        shape = static_shape(operand(node, 1)) or ()
        found = shape[2:]
    return (1, *found) if len(found) == 1 else tuple(found)


def steps(node: ir.Node, name: str = "strides") -> tuple[int, ...]:
    """Strides or dilations, as `kernel` counts axes."""
    found = attr_ints(node, name) or (1,) * len(kernel(node))
    return (found[0], *found) if len(found) == 1 else tuple(found)


def long_axes(value: ir.Value | None) -> int:
    """Axes longer than one."""
    return sum(1 for size in (static_shape(value) or ()) if size != 1)


def depthwise(node: ir.Node) -> bool:
    """Whether each channel has a kernel of its own."""
    shape = static_shape(node.inputs[0]) or (0, 0)
    return len(shape) > 1 and 1 < attr_int(node, "group", 1) == shape[1]


def computed(value: ir.Value | None) -> bool:
    """Whether the graph computes or is fed this value."""
    return value is not None and constant(value) is None


@check
def always(node: ir.Node, known: Known) -> bool:
    """The op is never taken."""
    return True


@check
def free_shape(node: ir.Node, known: Known) -> bool:
    """Some tensor has no fixed shape."""
    values = [item for item in (*node.inputs, *node.outputs) if item is not None and item.name]
    return any(static_shape(item) is None for item in values)


@check
def over_6_axes(node: ir.Node, known: Known) -> bool:
    """More than six long axes."""
    return any(long_axes(item) > 6 for item in (*node.inputs, *node.outputs))


@check
def over_4_axes(node: ir.Node, known: Known) -> bool:
    """More than four long axes."""
    return any(long_axes(item) > 4 for item in node.inputs if computed(item))


@check
def variable_weight(node: ir.Node, known: Known) -> bool:
    """The kernel is not constant."""
    return computed(operand(node, 1))


@check
def strides_differ(node: ir.Node, known: Known) -> bool:
    """Height and width have their own stride; along an axis of one it says nothing."""
    shape, found = static_shape(node.outputs[0]) or (), steps(node)
    moving = [step for step, size in zip(found, shape[2:], strict=False) if size > 1]
    return len(set(moving)) > 1


@check
def kernel_over_7_stride_2(node: ir.Node, known: Known) -> bool:
    """A large kernel with stride 2."""
    return max(kernel(node), default=1) > 7 and 2 in steps(node)


@check
def depthwise_kernel(node: ir.Node, known: Known) -> bool:
    """A depthwise kernel other than the known ones."""
    if not depthwise(node):
        return False
    size, step = kernel(node), max(steps(node))
    return (*size, step) != (1, 3, 1) and (len(set(size)) > 1 or (size[0], step) not in _DEPTHWISE)


@check
def stride_4_kernel(node: ir.Node, known: Known) -> bool:
    """Stride 4 without 11x11."""
    return 4 in steps(node) and set(kernel(node)) != {11}


@check
def even_kernel(node: ir.Node, known: Known) -> bool:
    """A kernel of even size along some axis."""
    return any(size % 2 == 0 for size in kernel(node))


@check
def kernel_3_stride_3(node: ir.Node, known: Known) -> bool:
    """3x3 with stride 3."""
    return set(kernel(node)) == {3} and 3 in steps(node)


@check
def wide_padding(node: ir.Node, known: Known) -> bool:
    """Padding to the left or right that exceeds the width."""
    pads, shape = attr_ints(node, "pads") or (), static_shape(node.inputs[0]) or ()
    if len(pads) < 2 or len(shape) < 3:
        return False
    return max(pads[len(pads) // 2 - 1], pads[-1]) > shape[-1]


@check
def deconvolution_kernel(node: ir.Node, known: Known) -> bool:
    """A transposed convolution other than the known ones."""
    size = kernel(node)
    plain = attr_int(node, "group", 1) == 1 and set(steps(node, "dilations")) == {1}
    return not plain or len(set(size)) > 1 or size[0] not in _DECONVOLUTIONS or set(steps(node)) != {2}


@check
def pool_not_validated(node: ir.Node, known: Known) -> bool:
    """A window or stride that was never validated; the stride along an axis of one says nothing."""
    size, found = kernel(node), steps(node)
    if len(size) == 2 and size[0] == 1 < size[1]:
        size, found = size[1:], found[1:]
    return len(set(size)) > 1 or len(set(found)) > 1 or (size[0], found[0]) not in _POOLS


@check
def dilated_pool(node: ir.Node, known: Known) -> bool:
    """A pool with dilation."""
    return any(item != 1 for item in steps(node, "dilations"))


@check
def large_plane(node: ir.Node, known: Known) -> bool:
    """A global pool over too many values."""
    return plane(node) > MOST_PLANE


def plane(node: ir.Node) -> int:
    """Values that a global pool averages."""
    total = 1
    for size in (static_shape(node.inputs[0]) or ())[2:]:
        total *= size
    return total


@check
def gemm_parameters(node: ir.Node, known: Known) -> bool:
    """A Gemm that is no fully connected layer."""
    scaled = attr_float(node, "alpha", 1.0) != 1.0 or attr_float(node, "beta", 1.0) != 1.0
    if scaled or attr_int(node, "transA", 0) or computed(operand(node, 1)):
        return True
    bias, width = static_shape(operand(node, 2)), (static_shape(node.outputs[0]) or (0,))[-1]
    return operand(node, 2) is not None and bias not in ((width,), (1, width))


@check
def operand_count(node: ir.Node, known: Known) -> bool:
    """Not two operands."""
    return len(node.inputs) != 2


@check
def variable_subtraction(node: ir.Node, known: Known) -> bool:
    """Two computed tensors are subtracted."""
    return all(computed(item) for item in node.inputs)


@check
def mixed_sign_product(node: ir.Node, known: Known) -> bool:
    """A product of two computed tensors, of which one is never negative and the other is."""
    if not all(computed(item) for item in node.inputs):
        return False
    found = [known.ranges.get(str(item.name)) for item in node.inputs if item is not None]
    signs = {item[0] < 0 for item in found if item is not None}
    return len(signs) > 1


@check
def softmax_axis(node: ir.Node, known: Known) -> bool:
    """Along neither of the last two axes."""
    size = rank(node.inputs[0]) or 1
    return axis_of(node, size, default=-1) < size - 2


@check
def concat_axis(node: ir.Node, known: Known) -> bool:
    """Along none of the last three axes, or along the batch."""
    size = rank(node.outputs[0]) or 1
    axis = axis_of(node, size)
    return axis < size - 3 or (axis == 0 and size > 1)


@check
def slice_batch(node: ir.Node, known: Known) -> bool:
    """A batch that is not one, or is sliced."""
    if node.op_type == "Split":
        axes: tuple[int, ...] | None = (attr_int(node, "axis", 0),)
    else:
        axes = ints(operand(node, 3))
    size = rank(node.inputs[0]) or 1
    if axes is None:
        axes = tuple(range(len(ints(operand(node, 1)) or ())))
    return (static_shape(node.inputs[0]) or (0,))[0] != 1 or 0 in axes or -size in axes


@check
def slice_step(node: ir.Node, known: Known) -> bool:
    """Bounds that are computed, or a step other than one."""
    bounds = [operand(node, index) for index in (1, 2, 3)]
    if any(computed(item) for item in bounds):
        return True
    return any(item != 1 for item in ints(operand(node, 4)) or ())


@check
def argmax_axis(node: ir.Node, known: Known) -> bool:
    """Not along the third axis from the end, or not keeping it."""
    size = rank(node.inputs[0]) or 1
    return axis_of(node, size) != size - 3 or not attr_int(node, "keepdims", 1)


@check
def resize_mode(node: ir.Node, known: Known) -> bool:
    """A mode or refinement that is not there."""
    stretched = attr_str(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    refined = attr_int(node, "antialias", 0) or attr_int(node, "exclude_outside", 0)
    return attr_str(node, "mode", "nearest") not in ("nearest", "linear") or bool(refined) or not stretched


@check
def resize_scale(node: ir.Node, known: Known) -> bool:
    """Scales that are no equal powers of two of width and height, at least one."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or after is None or len(before) < 3:
        return True
    scales = [new / old for old, new in zip(before, after, strict=True)]
    if any(item != 1 for item in scales[:-2]) or scales[-1] != scales[-2] or scales[-1] < 1:
        return True
    return not log2(scales[-1]).is_integer()


@check
def resize_coordinates(node: ir.Node, known: Known) -> bool:
    """A pairing of coordinates and rounding that is not there."""
    where = attr_str(node, "coordinate_transformation_mode", "half_pixel")
    linear = attr_str(node, "mode", "nearest") == "linear"
    rounding = attr_str(node, "nearest_mode", "round_prefer_floor")
    if where in _HALF:
        return not linear and rounding != "round_prefer_ceil"
    return where != "asymmetric" or linear or rounding != "floor"


@check
def pad_mode(node: ir.Node, known: Known) -> bool:
    """Anything but zeros around width and height."""
    value, axes = constant(operand(node, 2)), ints(operand(node, 3))
    pads, size = ints(operand(node, 1)), rank(node.inputs[0]) or 1
    if attr_str(node, "mode", "constant") != "constant" or (value is not None and value.any()):
        return True
    if pads is None or computed(operand(node, 2)):
        return True
    named = range(size) if axes is None else [item % size for item in axes]
    half = len(pads) // 2
    touched = [axis for place, axis in enumerate(named) if pads[place] or pads[place + half]]
    return any(axis < size - 2 for axis in touched)


@check
def clip_bounds(node: ir.Node, known: Known) -> bool:
    """Bounds that are computed or have the wrong signs."""
    bounds = [operand(node, 1), operand(node, 2)]
    if any(computed(item) for item in bounds):
        return True
    low, high = (constant(item) for item in bounds)
    return (low is not None and float(low.item()) > 0) or (high is not None and float(high.item()) <= 0)


@check
def layer_norm_axis(node: ir.Node, known: Known) -> bool:
    """Over more than the last axis."""
    size = rank(node.inputs[0]) or 1
    return axis_of(node, size, default=-1) != size - 1


@check
def variable_slope(node: ir.Node, known: Known) -> bool:
    """The slope is computed."""
    return computed(operand(node, 1))


@check
def cast_inside(node: ir.Node, known: Known) -> bool:
    """Not next to an input or output of the model."""
    source = node.inputs[0]
    return not (source is not None and source.is_graph_input()) and not node.outputs[0].is_graph_output()


@check
def computed_shape(node: ir.Node, known: Known) -> bool:
    """The shape is not a constant, or zeros in it stand for themselves."""
    return computed(operand(node, 1)) or bool(attr_int(node, "allowzero", 0))


@check
def gather_constant(node: ir.Node, known: Known) -> bool:
    """From constant data, or by computed indices."""
    return not computed(operand(node, 0)) or computed(operand(node, 1)) or not is_float(node.inputs[0])
