"""The tests behind the limits of the legacy import (AM5729, AM5749), as `checks` has them for today's SoCs.

Figures: the operators that TI's TVM deployment for AM57x offloads. `CHECKS` here holds both.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, axis_of, constant, operand, rank, static_shape
from edgekit_converters.targets.tidl.checks import (
    CHECKS,
    Known,
    check,
    computed,
    kernel,
    long_axes,
    pad_mode,
    plane,
    steps,
)

_SPAN = 9
_CHANNELS = 2048
_PLANE = 4096
_DENSE = (65536, 16384, 67108864)
_CLASSES = 15
_BEFORE_ACTIVATION = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "BatchNormalization")


@check
def legacy_kernel(node: ir.Node, known: Known) -> bool:
    """A kernel that spans too much."""
    spans = zip(kernel(node), steps(node, "dilations"), strict=True)
    return any((size - 1) * dilation + 1 > _SPAN for size, dilation in spans)


@check
def legacy_stride(node: ir.Node, known: Known) -> bool:
    """A stride above two."""
    return max(steps(node), default=1) > 2


@check
def legacy_dilation(node: ir.Node, known: Known) -> bool:
    """A dilation other than one, two and four."""
    return any(item not in (1, 2, 4) for item in steps(node, "dilations"))


@check
def legacy_channels(node: ir.Node, known: Known) -> bool:
    """Too many channels."""
    shape = static_shape(operand(node, 1)) or (0, 0)
    return max(shape[0], shape[1]) > _CHANNELS


@check
def legacy_deconvolution(node: ir.Node, known: Known) -> bool:
    """Not one group a channel with stride two."""
    shape = static_shape(operand(node, 1)) or (0, 0)
    single = shape[1] == 1 and attr_int(node, "group", 1) == shape[0]
    return not single or set(steps(node)) != {2}


@check
def legacy_pool(node: ir.Node, known: Known) -> bool:
    """A window or stride that is too large."""
    size, found = kernel(node), steps(node)
    dilated = any(item != 1 for item in steps(node, "dilations"))
    return dilated or max(size, default=1) > _SPAN or found[0] > 3 or found[-1] > 2


@check
def legacy_plane(node: ir.Node, known: Known) -> bool:
    """A global pool over too many values."""
    return plane(node) > _PLANE


@check
def legacy_dense(node: ir.Node, known: Known) -> bool:
    """A matrix that is computed or too large."""
    shape = static_shape(operand(node, 1))
    if computed(operand(node, 1)) or shape is None or len(shape) != 2:
        return True
    read, made = shape[::-1] if attr_int(node, "transB", 0) else shape
    return read > _DENSE[0] or made > _DENSE[1] or read * made > _DENSE[2]


@check
def legacy_clip(node: ir.Node, known: Known) -> bool:
    """Anything but ReLU6."""
    bounds = [constant(operand(node, index)) for index in (1, 2)]
    return [None if item is None else float(item.item()) for item in bounds] != [0.0, 6.0]


@check
def lone_activation(node: ir.Node, known: Known) -> bool:
    """An activation that nothing can take in."""
    maker = node.inputs[0].producer() if node.inputs[0] is not None else None
    return maker is None or maker.op_type not in _BEFORE_ACTIVATION


@check
def legacy_addition(node: ir.Node, known: Known) -> bool:
    """Not two computed tensors of one shape."""
    shapes = {static_shape(item) for item in node.inputs}
    return not all(computed(item) for item in node.inputs) or len(shapes) != 1


@check
def legacy_concat(node: ir.Node, known: Known) -> bool:
    """Not along the channels."""
    return axis_of(node, rank(node.outputs[0]) or 1) != 1


@check
def legacy_argmax(node: ir.Node, known: Known) -> bool:
    """Not along a few channels, or not keeping the axis."""
    shape = static_shape(node.inputs[0]) or (0, 0)
    wrong = axis_of(node, len(shape)) != 1 or not attr_int(node, "keepdims", 1)
    return wrong or shape[1] > _CLASSES


@check
def lone_padding(node: ir.Node, known: Known) -> bool:
    """Padding that no convolution reads, or other than zeros."""
    readers = node.outputs[0].consumers()
    return not readers or any(item.op_type != "Conv" for item in readers) or pad_mode(node, known)


@check
def legacy_reshape(node: ir.Node, known: Known) -> bool:
    """A result that is no row of values."""
    return long_axes(node.outputs[0]) > 1


__all__ = ["CHECKS"]
