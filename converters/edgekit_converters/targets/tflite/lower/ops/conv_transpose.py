"""ConvTranspose in one, two or three dimensions: TRANSPOSE_CONV, CONV_3D_TRANSPOSE.

TFLite computes the full result (VALID, possibly a few rows more for ``output_padding``) and a slice cuts
the padding away, unless SAME says just that. Dilation is put into the kernel as zeros; groups are
computed apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower import layout, spatial, weights
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Quant, Spec, Tensor, known


@dataclass(frozen=True)
class _Plan:
    """Per spatial axis: stride, size of the dilated kernel, what is cut in front, both sizes."""

    strides: tuple[int, ...]
    extent: tuple[int, ...]
    cut: tuple[int, ...]
    sizes: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def full(self) -> tuple[int, ...]:
        """Size to compute before cutting: all that the kernel reaches, and no less than is kept."""
        reach = ((n - 1) * s + e for n, s, e in zip(self.sizes, self.strides, self.extent, strict=True))
        return tuple(max(r, c + o) for r, c, o in zip(reach, self.cut, self.outputs, strict=True))

    @property
    def same(self) -> bool:
        """Whether SAME computes just the output."""
        for size, out, stride, extent, cut in zip(
            self.sizes, self.outputs, self.strides, self.extent, self.cut, strict=True
        ):
            total = max((size - 1) * stride + extent - out, 0)
            if -(-out // stride) != size or total // 2 != cut:
                return False
        return True


@lowers("ConvTranspose", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def conv_transpose(ctx: Context, node: ir.Node) -> None:
    """See the module."""
    value, kernel = nodes.required(node, 0), nodes.required(node, 1)
    if ctx.dtype(value) is not ir.DataType.FLOAT:
        nodes.refuse(node, f"of {ctx.dtype(value).name}", code="unsupported_type")
    plan = _plan(ctx, node)
    source = ctx.channels_last(value)
    perm = layout.channels_last(source.rank)
    groups = nodes.attr_int(node, "group", 1)
    activation, result = ctx.fused(node) if ctx.pattern is not None else (0, node.outputs[0])
    if activation or (groups > 1 and ctx.pattern is not None):
        nodes.refuse(node, "this form on integers", code="unsupported_attribute")
    spec = ctx.output(result, perm)
    sources = _split(ctx, source, source.rank - 1, groups)
    kernels = _kernels(ctx, node, kernel, groups)
    biases = _biases(ctx, node, source, groups)
    step = _volume if source.rank == 5 else _image
    made = [step(ctx, *operands, plan, spec) for operands in zip(sources, kernels, biases, strict=True)]
    joined = made[0] if groups == 1 else ctx.emit("CONCATENATION", made, spec, axis=source.rank - 1)
    ctx.set(result, joined, perm)


def _plan(ctx: Context, node: ir.Node) -> _Plan:
    shape = ctx.shape(nodes.required(node, 0))
    sizes, outputs = known(shape[2:]), known(ctx.shape(node.outputs[0])[2:])
    if sizes is None or outputs is None or (shape[0] is None and len(shape) == 5):
        nodes.refuse(node, f"over {shape}, known only at run time", code="dynamic_shape")
    rank = len(sizes)
    kernel = ctx.shape(nodes.required(node, 1))[2:]
    strides = nodes.attr_ints(node, "strides") or (1,) * rank
    dilations = nodes.attr_ints(node, "dilations") or (1,) * rank
    extent = tuple(((k or 1) - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    return _Plan(strides, extent, _cut(node, sizes, outputs, strides, extent), sizes, outputs)


def _cut(
    node: ir.Node,
    sizes: tuple[int, ...],
    outputs: tuple[int, ...],
    strides: tuple[int, ...],
    extent: tuple[int, ...],
) -> tuple[int, ...]:
    """Padding in front: stated, or following from the output's size (``auto_pad``, ``output_shape``)."""
    rank = len(sizes)
    auto = nodes.attr_str(node, "auto_pad", "NOTSET")
    if auto == "NOTSET" and nodes.attr_ints(node, "output_shape") is None:
        return (nodes.attr_ints(node, "pads") or (0,) * rank)[:rank]
    if auto == "VALID":
        return (0,) * rank
    extra = nodes.attr_ints(node, "output_padding") or (0,) * rank
    result = []
    for size, out, stride, reach, more in zip(sizes, outputs, strides, extent, extra, strict=True):
        total = max((size - 1) * stride + more + reach - out, 0)
        result.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
    return tuple(result)


def _split(ctx: Context, tensor: Tensor, axis: int, groups: int) -> list[Tensor]:
    if groups == 1:
        return [tensor]
    shape = list(tensor.shape)
    shape[axis] = (shape[axis] or 0) // groups
    return ctx.emit_all(
        "SPLIT", [ctx.ints(np.array(axis)), tensor], [tensor.spec(shape)] * groups, numSplits=groups
    )


def _kernels(ctx: Context, node: ir.Node, kernel: ir.Value, groups: int) -> list[Tensor]:
    """C, O, spatial axes as O, H, W, C (or D, H, W, O, C), a group each, dilated."""
    rank = ctx.rank(kernel)
    perm = (2, 3, 4, 1, 0) if rank == 5 else (1, *range(2, rank), 0)
    dilations = nodes.attr_ints(node, "dilations") or (1,) * (rank - 2)
    known_kernel = ctx.resolved(kernel).const_value
    if known_kernel is None:
        tensor = _dilated_at_run_time(ctx, ctx.in_order(kernel, perm), perm, dilations)
        return [spatial.lift_kernel(ctx, part) for part in _split(ctx, tensor, rank - 1, groups)]
    array = _dilated(known_kernel.numpy(), dilations)
    quant = ctx.quants.get(ctx.resolved(kernel))
    made = []
    for part in np.split(array, groups):
        taps = part.transpose(perm)
        taps = taps[:, None] if rank == 3 else taps
        if quant is None:
            made.append(weights.weight(ctx, taps, 0, name=kernel.name or "kernel", hybrid=False))
        else:
            made.append(ctx.const(taps, name="kernel", quant=Quant(quant.scale, quant.zero_point, 0)))
    return made


def _dilated_at_run_time(
    ctx: Context, tensor: Tensor, perm: tuple[int, ...], dilations: tuple[int, ...]
) -> Tensor:
    if set(dilations) == {1}:
        return tensor
    factors = [dilations[axis - 2] if axis >= 2 else 1 for axis in perm]
    shape = [None if n is None else (n - 1) * f + 1 for n, f in zip(tensor.shape, factors, strict=True)]
    zero = ctx.const(np.array(0, np.float32))
    return ctx.emit("DILATE", [tensor, ctx.ints(factors), zero], tensor.spec(shape))


def _dilated(array: np.ndarray, dilations: tuple[int, ...]) -> np.ndarray:
    if set(dilations) == {1}:
        return array
    sizes = [(n - 1) * d + 1 for n, d in zip(array.shape[2:], dilations, strict=True)]
    result = np.zeros((*array.shape[:2], *sizes), array.dtype)
    result[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = array
    return result


def _biases(ctx: Context, node: ir.Node, source: Tensor, groups: int) -> list[Tensor]:
    value = nodes.operand(node, 2)
    channels = ctx.shape(nodes.required(node, 1))[1] or 0
    quant = ctx.quants.get(ctx.resolved(nodes.required(node, 1)))
    if value is None or groups == 1:
        return [weights.bias(ctx, value, channels, source, quant)] * groups
    array = ctx.constant(value)
    if array is None:
        return _split(ctx, ctx.tensor(value), 0, groups)
    return [ctx.const(part, name=value.name or "bias") for part in np.split(array, groups)]


def _image(ctx: Context, source: Tensor, kernel: Tensor, bias: Tensor, plan: _Plan, spec: Spec) -> Tensor:
    """One group in one or two dimensions, cut to the output's size."""
    channels = kernel.shape[0]
    said = spatial.SAME if plan.same else spatial.VALID
    sizes = plan.outputs if plan.same else plan.full
    image = spatial.lift(ctx, source)
    full = Spec(spatial.lifted((source.shape[0], *sizes, channels)), spec.dtype, spec.quant)
    made = ctx.emit(
        "TRANSPOSE_CONV",
        [_sizes(ctx, image, full), kernel, image, bias],
        full,
        padding=said,
        strideH=spatial.rows(plan.strides)[0],
        strideW=spatial.rows(plan.strides)[1],
    )
    cut = made
    if not plan.same:
        cut = _sliced(ctx, made, spatial.rows(plan.cut, 0), spatial.rows(plan.outputs))
    return ctx.reshape(cut, (source.shape[0], *plan.outputs, channels))


def _volume(ctx: Context, source: Tensor, kernel: Tensor, bias: Tensor, plan: _Plan, spec: Spec) -> Tensor:
    """One group in three dimensions."""
    if ctx.pattern is not None:
        raise Refusal("CONV_3D_TRANSPOSE has no integer kernel", code="unsupported_type")
    full = Spec((source.shape[0], *plan.full, kernel.shape[3]), spec.dtype)
    made = ctx.emit(
        "CONV_3D_TRANSPOSE",
        [ctx.ints(known(full.shape) or ()), kernel, source],
        full,
        padding=spatial.VALID,
        strideD=plan.strides[0],
        strideH=plan.strides[1],
        strideW=plan.strides[2],
        dilationDFactor=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )
    return ctx.binary("ADD", _sliced(ctx, made, plan.cut, plan.outputs), bias)


def _sizes(ctx: Context, image: Tensor, full: Spec) -> Tensor:
    """The output's shape as TRANSPOSE_CONV wants it; the batch is read from the input where it is free."""
    fixed = known(full.shape)
    if fixed is not None:
        return ctx.ints(fixed)
    vector = ctx.emit("SHAPE", [image], Spec((4,), ir.DataType.INT32), outType=2)
    first = ctx.emit("SLICE", [vector, ctx.ints([0]), ctx.ints([1])], Spec((1,), ir.DataType.INT32))
    rest = ctx.ints(known(full.shape[1:]) or ())
    return ctx.emit("CONCATENATION", [first, rest], Spec((4,), ir.DataType.INT32), axis=0)


def _sliced(ctx: Context, tensor: Tensor, cut: tuple[int, ...], outputs: tuple[int, ...]) -> Tensor:
    if not any(cut) and known(tensor.shape[1:-1]) == tuple(outputs):
        return tensor
    shape = (tensor.shape[0], *outputs, tensor.shape[-1])
    begin = ctx.ints([0, *cut, 0])
    size = ctx.ints([-1, *outputs, -1])
    return ctx.emit("SLICE", [tensor, begin, size], tensor.spec(shape))
