"""Pools: MaxPool, AveragePool and the global ones, in one, two or three dimensions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower import layout, spatial
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.spatial import Window
from edgekit_converters.targets.tflite.lower.tensors import Perm, Shape, Spec, Tensor, known

_MOST_TAPS = 128


@lowers("MaxPool", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def max_pool(ctx: Context, node: ir.Node) -> None:
    """Largest of each window; in three dimensions one pool over the plane and one over the depth."""
    if ctx.pattern is None and ctx.dtype(nodes.required(node, 0)) in (ir.DataType.INT8, ir.DataType.UINT8):
        _whole_numbers(ctx, node)
        return
    value, win, spec = _read(ctx, node)
    if any(nodes.used_outputs(node)[1:]):
        nodes.refuse(node, "the indices of the largest elements", code="unsupported_attribute")
    source, sizes = ctx.channels_last(value), ctx.shape(value)[2:]
    if set(win.dilations) != {1}:
        source = spatial.pad(ctx, source, spatial.explicit(win, sizes, spec.shape[1:-1]), -np.inf)
        ctx.set(node.outputs[0], _by_taps(ctx, node, "MAXIMUM", source, win, spec), _last(spec))
        return
    said = spatial.padding(win, sizes, spec.shape[1:-1])
    if said is None:
        source = spatial.pad(ctx, source, spatial.explicit(win, sizes, spec.shape[1:-1]), -np.inf)
        said = spatial.VALID
    made = _pooled(ctx, "MAX_POOL_2D", source, win, said, spec)
    ctx.set(node.outputs[0], made, layout.channels_last(len(spec.shape)))


def _whole_numbers(ctx: Context, node: ir.Node) -> None:
    """Bytes without a scale, pooled as floats, which hold them exactly."""
    value, out = nodes.required(node, 0), node.outputs[0]
    kind = ctx.dtype(value)
    real = ir.Value(name=f"{value.name}_real", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    made = ir.Value(name=f"{out.name}_real", shape=out.shape, type=ir.TensorType(ir.DataType.FLOAT))
    tensor, perm = ctx.any_layout(value)
    ctx.set(real, ctx.cast(tensor, ir.DataType.FLOAT), perm)
    max_pool(ctx, ir.Node("", "MaxPool", [real], node.attributes.values(), outputs=[made], name=node.name))
    tensor, perm = ctx.any_layout(made)
    ctx.set(out, ctx.cast(tensor, kind), perm)


@lowers("AveragePool", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def average_pool(ctx: Context, node: ir.Node) -> None:
    """Mean of each window. Where TFLite would count other elements than ONNX, the mean over the padded
    window is multiplied by what the count should have been."""
    value, win, spec = _read(ctx, node)
    source, sizes = ctx.channels_last(value), ctx.shape(value)[2:]
    said = spatial.padding(win, sizes, spec.shape[1:-1])
    include = bool(nodes.attr_int(node, "count_include_pad", 0)) and win.padded
    perm = layout.channels_last(len(spec.shape))
    dilated = set(win.dilations) != {1}
    if (
        said is not None
        and not dilated
        and not include
        and (said == spatial.SAME or not _short(win, sizes, spec))
    ):
        ctx.set(node.outputs[0], _pooled(ctx, "AVERAGE_POOL_2D", source, win, said, spec), perm)
        return
    ratio = _ratio(ctx, node, win, sizes, spec, include)
    source = spatial.pad(ctx, source, spatial.explicit(win, sizes, spec.shape[1:-1]))
    if dilated:
        made = _by_taps(ctx, node, "ADD", source, win, spec)
        ratio = ratio / np.prod(win.kernel)
    else:
        made = _pooled(ctx, "AVERAGE_POOL_2D", source, win, spatial.VALID, spec)
    if not np.all(ratio == 1):
        if ctx.pattern is not None:
            nodes.refuse(node, "an integer average over uneven windows", code="unsupported_attribute")
        made = ctx.binary("MUL", made, ctx.const(ratio.astype(np.float32)))
    ctx.set(node.outputs[0], made, perm)


def _read(ctx: Context, node: ir.Node) -> tuple[ir.Value, Window, Spec]:
    value = nodes.required(node, 0)
    shape = ctx.shape(value)
    kernel = nodes.attr_ints(node, "kernel_shape") or ()
    if len(shape) not in (3, 4, 5) or len(kernel) != len(shape) - 2:
        nodes.refuse(node, f"a pool of {kernel} over {shape}", code="unsupported_attribute")
    allowed = (ir.DataType.FLOAT,) if ctx.pattern is None else (ir.DataType.INT8, ir.DataType.INT16)
    dtype = ctx.dtype(ctx.resolved(value))
    if dtype not in allowed:
        nodes.refuse(node, f"a pool of {dtype.name}", code="unsupported_type")
    return value, spatial.window(node, kernel, shape[2:]), ctx.output(node, layout.channels_last(len(shape)))


def _pooled(ctx: Context, op: str, source: Tensor, win: Window, said: int, spec: Spec) -> Tensor:
    """A pool over one or two axes; three axes as planes, then depth."""
    if source.rank == 5:
        return _volume(ctx, op, source, win, said, spec)
    made = _emit(ctx, op, spatial.lift(ctx, source), win, said, spatial.lifted(spec.shape))
    return ctx.reshape(made, spec.shape)


def _emit(ctx: Context, op: str, image: Tensor, win: Window, said: int, shape: Shape) -> Tensor:
    strides, kernel = spatial.rows(win.strides), spatial.rows(win.kernel)
    return ctx.emit(
        op,
        [image],
        image.spec(shape),
        padding=said,
        strideH=strides[0],
        strideW=strides[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
    )


def _volume(ctx: Context, op: str, source: Tensor, win: Window, said: int, spec: Spec) -> Tensor:
    """(N, D, H, W, C): pool the planes (N·D, H, W, C), then the depth (N, D, H·W, C)."""
    shape = known(source.shape)
    wanted = known(spec.shape)
    if shape is None or wanted is None or (said == spatial.SAME and op == "AVERAGE_POOL_2D"):
        raise Refusal(f"{op} over a volume of unknown or padded size", code="dynamic_shape")
    batch, depth, height, width, channels = shape
    _, out_depth, out_height, out_width, _ = wanted
    planes = ctx.reshape(source, (batch * depth, height, width, channels))
    plane = Window(win.kernel[1:], win.strides[1:], (1, 1), (0, 0), (0, 0))
    pooled = _emit(ctx, op, planes, plane, said, (batch * depth, out_height, out_width, channels))
    lines = ctx.reshape(pooled, (batch, depth, out_height * out_width, channels))
    line = Window((win.kernel[0], 1), (win.strides[0], 1), (1, 1), (0, 0), (0, 0))
    made = _emit(ctx, op, lines, line, said, (batch, out_depth, out_height * out_width, channels))
    return ctx.reshape(made, wanted)


def _by_taps(ctx: Context, node: ir.Node, op: str, source: Tensor, win: Window, spec: Spec) -> Tensor:
    """A pool as one strided slice a tap of the kernel, joined by `op`; for what no pooling kernel does."""
    outputs = known(spec.shape[1:-1])
    if outputs is None or ctx.pattern is not None or np.prod(win.kernel) > _MOST_TAPS:
        nodes.refuse(node, f"a dilated pool of {win.kernel} in this form", code="unsupported_attribute")
    steps = ctx.ints([1, *win.strides, 1])
    made = None
    for tap in np.ndindex(*win.kernel):
        first = [at * dilation for at, dilation in zip(tap, win.dilations, strict=True)]
        last = [f + (o - 1) * s + 1 for f, o, s in zip(first, outputs, win.strides, strict=True)]
        piece = ctx.emit(
            "STRIDED_SLICE",
            [source, ctx.ints([0, *first, 0]), ctx.ints([0, *last, 0]), steps],
            source.spec(spec.shape),
            beginMask=_ends(source.rank),
            endMask=_ends(source.rank),
        )
        made = piece if made is None else ctx.binary(op, made, piece)
    assert made is not None
    return made


def _ends(rank: int) -> int:
    """The mask of the first and last axis, which are taken whole."""
    return 1 | 1 << (rank - 1)


def _last(spec: Spec) -> Perm:
    return layout.channels_last(len(spec.shape))


def _short(win: Window, sizes: Shape, spec: Spec) -> bool:
    """Whether some window hangs over the end (ceil_mode), so that VALID would not reach it."""
    return any(after for _, after in spatial.explicit(win, sizes, spec.shape[1:-1]))


def _ratio(ctx: Context, node: ir.Node, win: Window, sizes: Shape, spec: Spec, include: bool) -> np.ndarray:
    """Kernel size over the number of elements that ONNX counts, for every output position."""
    fixed, outputs = known(sizes), known(spec.shape[1:-1])
    if fixed is None or outputs is None:
        nodes.refuse(node, "uneven windows over sizes known only at run time", code="dynamic_shape")
    ratio = np.ones((1,) * (len(fixed) + 2), np.float64)
    for axis, (size, out) in enumerate(zip(fixed, outputs, strict=True)):
        low = -win.before[axis] if include else 0
        high = size + win.after[axis] if include else size
        starts = np.arange(out) * win.strides[axis] - win.before[axis]
        taps = starts[:, None] + np.arange(win.kernel[axis]) * win.dilations[axis]
        counts = ((taps >= low) & (taps < high)).sum(axis=1)
        shape = [1] * (len(fixed) + 2)
        shape[axis + 1] = out
        ratio = ratio * (win.kernel[axis] / counts).reshape(shape)
    return ratio


@lowers("GlobalAveragePool", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def global_average_pool(ctx: Context, node: ir.Node) -> None:
    """Mean over all spatial axes."""
    _reduced(ctx, node, "MEAN")


@lowers("GlobalMaxPool", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def global_max_pool(ctx: Context, node: ir.Node) -> None:
    """Largest over all spatial axes."""
    _reduced(ctx, node, "REDUCE_MAX")


def _reduced(ctx: Context, node: ir.Node, op: str) -> None:
    value = nodes.required(node, 0)
    tensor, perm = ctx.any_layout(value)
    if ctx.pattern is None and ctx.dtype(value) is not ir.DataType.FLOAT:
        nodes.refuse(node, f"a pool of {ctx.dtype(value).name}", code="unsupported_type")
    axes = [place for place, axis in enumerate(perm) if axis >= 2]
    if not axes:
        ctx.alias(node.outputs[0], value, layout.identity(len(perm)))
        return
    made = ctx.emit(op, [tensor, ctx.ints(axes)], ctx.output(node, perm), keepDims=True)
    ctx.set(node.outputs[0], made, perm)
