"""Conv in one, two or three dimensions: CONV_2D, DEPTHWISE_CONV_2D, CONV_3D."""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower import layout, spatial, weights
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.spatial import Window
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor


@lowers("Conv", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def conv(ctx: Context, node: ir.Node) -> None:
    """Strided, dilated, grouped; padding that TFLite cannot say becomes a PAD."""
    value, kernel = nodes.required(node, 0), nodes.required(node, 1)
    shape, taps = ctx.shape(value), nodes.static_shape(kernel)
    if ctx.dtype(value) is not ir.DataType.FLOAT:
        nodes.refuse(node, f"CONV of {ctx.dtype(value).name}", code="unsupported_type")
    if taps is None or len(shape) not in (3, 4, 5) or None in (shape[1],):
        nodes.refuse(node, f"kernel {taps} over {shape}", code="dynamic_shape")
    win = spatial.window(node, taps[2:], shape[2:])
    source = ctx.channels_last(value)
    activation, result = ctx.fused(node)
    perm = layout.channels_last(len(shape))
    spec = ctx.output(result, perm)
    said = spatial.padding(win, shape[2:], spec.shape[1:-1])
    if said is None:
        source = spatial.pad(ctx, source, spatial.explicit(win, shape[2:], spec.shape[1:-1]))
        said = spatial.VALID
    if len(shape) == 5:
        made = _conv3d(ctx, node, source, win, said, activation, spec)
    else:
        made = _conv2d(ctx, node, source, win, said, activation, spec)
    ctx.set(result, made, perm)


def _conv2d(
    ctx: Context, node: ir.Node, source: Tensor, win: Window, said: int, activation: int, spec: Spec
) -> Tensor:
    kernel = nodes.required(node, 1)
    image = spatial.lift(ctx, source)
    channels, groups = source.shape[-1], nodes.attr_int(node, "group", 1)
    outputs = ctx.shape(kernel)[0]
    depthwise = groups > 1 and groups == channels
    filters = _filters(ctx, kernel, depthwise)
    bias = weights.bias(ctx, nodes.operand(node, 2), outputs or 0, source, filters.quant)
    strides, dilations = spatial.rows(win.strides), spatial.rows(win.dilations)
    fields = {
        "padding": said,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": activation,
    }
    if depthwise:
        assert isinstance(outputs, int)
        fields["depthMultiplier"] = outputs // groups
    op = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    flat = Spec(spatial.lifted(spec.shape), spec.dtype, spec.quant)
    made = ctx.emit(op, [image, filters, bias], flat, **fields)
    return ctx.reshape(made, spec.shape)


def _filters(ctx: Context, kernel: ir.Value, depthwise: bool) -> Tensor:
    """O,I,H,W as O,H,W,I; for depthwise as 1,H,W,O. A row is added to a one-dimensional kernel."""
    rank = ctx.rank(kernel)
    perm = (1, *range(2, rank), 0) if depthwise else (0, *range(2, rank), 1)
    taps = nodes.static_shape(kernel)
    if rank == 4 or taps is None:
        return weights.of_value(ctx, kernel, perm, 3 if depthwise else 0, depthwise=depthwise)
    first, *others = (taps[axis] for axis in perm)
    return weights.of_value(
        ctx, kernel, perm, 3 if depthwise else 0, (first, 1, *others), depthwise=depthwise
    )


def _conv3d(
    ctx: Context, node: ir.Node, source: Tensor, win: Window, said: int, activation: int, spec: Spec
) -> Tensor:
    kernel = nodes.required(node, 1)
    if nodes.attr_int(node, "group", 1) != 1:
        nodes.refuse(node, "groups in three dimensions", code="unsupported_attribute")
    if ctx.pattern is not None:
        nodes.refuse(node, "CONV_3D has no integer kernel", code="unsupported_type")
    filters = ctx.in_order(kernel, (2, 3, 4, 1, 0))
    bias = weights.bias(ctx, nodes.operand(node, 2), ctx.shape(kernel)[0] or 0, source, None)
    return ctx.emit(
        "CONV_3D",
        [source, filters, bias],
        spec,
        padding=said,
        strideD=win.strides[0],
        strideH=win.strides[1],
        strideW=win.strides[2],
        dilationDFactor=win.dilations[0],
        dilationHFactor=win.dilations[1],
        dilationWFactor=win.dilations[2],
        fusedActivationFunction=activation,
    )
