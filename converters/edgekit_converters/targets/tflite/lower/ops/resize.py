"""Resize: TFLite's own ops where they sample the same points, else axis by axis.

``nearest`` gathers constant indices along each axis; ``linear`` and ``cubic`` multiply each axis by a
constant matrix. So every coordinate mode, antialiasing and cropping is exact. Sizes must be known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower import interpolation, layout
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.interpolation import Axis
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Perm, Spec, Tensor, known

_FLAGS = ({"align": False, "half": True}, {"align": False, "half": False}, {"align": True, "half": False})


@lowers("Resize", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def resize(ctx: Context, node: ir.Node) -> None:
    """See the module."""
    value, mode = nodes.required(node, 0), nodes.attr_str(node, "mode", "nearest")
    axes = _axes(ctx, node)
    if mode != "nearest" and ctx.dtype(value) is not ir.DataType.FLOAT:
        nodes.refuse(node, f"{mode} of {ctx.dtype(value).name}", code="unsupported_type")
    active = {place: axis for place, axis in enumerate(axes) if not axis.trivial}
    if _plain(ctx, node, value, mode, active):
        return
    tensor, perm = ctx.any_layout(value)
    if ctx.pattern is not None and mode != "nearest":
        nodes.refuse(node, "an integer resize of this kind", code="unsupported_attribute")
    for place, axis in active.items():
        step = _gathered if mode == "nearest" else _multiplied
        tensor = step(ctx, tensor, perm.index(place), axis, mode)
    tensor = _extrapolated(ctx, node, tensor, perm, active)
    ctx.set(node.outputs[0], tensor if active else ctx.reshape(tensor, tensor.shape), perm)


def _axes(ctx: Context, node: ir.Node) -> list[Axis]:
    """Every axis of the input with what the node says of it."""
    value = nodes.required(node, 0)
    shape, outs = known(ctx.shape(value)), known(ctx.shape(node.outputs[0]))
    if shape is None or outs is None:
        shape, outs = _where_known(ctx, node)
    rank = len(shape)
    chosen = nodes.front(nodes.attr_ints(node, "axes") or range(rank), rank)
    scales, roi = _stated(node, 2), _stated(node, 1)
    stated = {} if scales is None or scales.size == 0 else dict(zip(chosen, map(float, scales), strict=True))
    crop = {} if roi is None or roi.size == 0 else dict(zip(chosen, roi.reshape(2, -1).T, strict=True))
    sizes = _proportions(node, shape, outs, chosen)
    return [
        Axis(
            size=shape[i],
            out=outs[i],
            scale=stated.get(i, sizes.get(i, 1.0)),
            coordinates=nodes.attr_str(node, "coordinate_transformation_mode", "half_pixel")
            if i in chosen
            else "asymmetric",
            nearest=nodes.attr_str(node, "nearest_mode", "round_prefer_floor"),
            cubic_a=nodes.attr_float(node, "cubic_coeff_a", -0.75),
            exclude_outside=bool(nodes.attr_int(node, "exclude_outside", 0)),
            antialias=bool(nodes.attr_int(node, "antialias", 0)),
            roi=(float(crop.get(i, (0, 1))[0]), float(crop.get(i, (0, 1))[1])),
        )
        for i in range(rank)
    ]


def _stated(node: ir.Node, index: int) -> Any:
    """A constant operand; None where it is left out."""
    value = nodes.operand(node, index)
    if index == 1 and nodes.attr_str(node, "coordinate_transformation_mode") != "tf_crop_and_resize":
        return None
    if value is not None and nodes.constant(value) is None:
        nodes.refuse(node, f"{value.name!r} is computed", code="requires_constant_input")
    return nodes.constant(value)


def _where_known(ctx: Context, node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes with 1 for an axis that is free and not resized."""
    shape, outs = ctx.shape(nodes.required(node, 0)), ctx.shape(node.outputs[0])
    scales = nodes.constant(nodes.operand(node, 2))
    for place, (size, out) in enumerate(zip(shape, outs, strict=True)):
        kept = place == 0 and scales is not None and scales.size == len(shape) and scales[0] == 1
        kept = kept or (place == 0 and 0 not in nodes.front(nodes.attr_ints(node, "axes") or [0], len(shape)))
        if (size is None or out is None) and not kept:
            nodes.refuse(node, f"sizes {shape} to {outs} known only at run time", code="dynamic_shape")
    return tuple(1 if i is None else i for i in shape), tuple(1 if i is None else i for i in outs)


def _proportions(
    node: ir.Node, shape: tuple[int, ...], outs: tuple[int, ...], chosen: tuple[int, ...]
) -> Mapping[int, float]:
    """Scales where the node gives sizes: output over input, or the one factor that keeps the aspect."""
    wanted = nodes.ints(nodes.operand(node, 3))
    policy = nodes.attr_str(node, "keep_aspect_ratio_policy", "stretch")
    if wanted is None or policy == "stretch":
        return {i: outs[i] / shape[i] for i in chosen}
    factors = [size / shape[i] for size, i in zip(wanted, chosen, strict=True)]
    factor = min(factors) if policy == "not_larger" else max(factors)
    return dict.fromkeys(chosen, factor)


def _plain(ctx: Context, node: ir.Node, value: ir.Value, mode: str, active: Mapping[int, Axis]) -> bool:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR where they give the same."""
    if not active or ctx.rank(value) != 4 or not set(active) <= {2, 3} or mode == "cubic":
        return False
    dtype = ctx.dtype(ctx.resolved(value))
    if dtype not in (ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16):
        return False
    if any(interpolation.outside(axis).any() for axis in active.values()):
        return False
    ours: Callable[[Axis], Any] = interpolation.indices if mode == "nearest" else _linear
    theirs = interpolation.tflite_indices if mode == "nearest" else interpolation.tflite_matrix
    for flags in _FLAGS:
        agree = all(_agree(ours(axis), theirs(axis.size, axis.out, **flags)) for axis in active.values())
        if agree and _emit_plain(ctx, node, value, mode, flags):
            return True
    return False


def _linear(axis: Axis) -> Any:
    return interpolation.matrix(axis, cubic=False)


def _agree(ours: Any, theirs: Any) -> bool:
    return bool(np.allclose(ours, theirs, rtol=0, atol=2e-6))


def _emit_plain(ctx: Context, node: ir.Node, value: ir.Value, mode: str, flags: Mapping[str, bool]) -> bool:
    """Whether the runtime takes the op with these flags."""
    perm = layout.channels_last(4)
    spec = ctx.output(node, perm)
    size = known(spec.shape[1:3])
    assert size is not None
    op = "RESIZE_NEAREST_NEIGHBOR" if mode == "nearest" else "RESIZE_BILINEAR"
    fields = {"alignCorners": flags["align"], "halfPixelCenters": flags["half"]}
    inputs = [ctx.channels_last(value), ctx.ints(size)]
    if not ctx.allows(op, inputs, spec, **fields):
        return False
    ctx.set(node.outputs[0], ctx.emit(op, inputs, spec, **fields), perm)
    return True


def _gathered(ctx: Context, tensor: Tensor, place: int, axis: Axis, mode: str) -> Tensor:
    shape = (*tensor.shape[:place], axis.out, *tensor.shape[place + 1 :])
    picks = ctx.ints(interpolation.indices(axis))
    return ctx.emit("GATHER", [tensor, picks], tensor.spec(shape), axis=place)


def _multiplied(ctx: Context, tensor: Tensor, place: int, axis: Axis, mode: str) -> Tensor:
    """Along the last axis a FULLY_CONNECTED, else a product from the left."""
    weights = ctx.const(interpolation.matrix(axis, cubic=mode == "cubic"), name="resize")
    shape = (*tensor.shape[:place], axis.out, *tensor.shape[place + 1 :])
    after = known(tensor.shape[place + 1 :])
    assert after is not None
    width = int(np.prod(after))
    if width == 1:
        rows = ctx.reshape(
            tensor, (None if None in tensor.shape[:place] else _count(tensor, place), axis.size)
        )
        zero = ctx.const(np.zeros(axis.out, np.float32))
        made = ctx.emit("FULLY_CONNECTED", [rows, weights, zero], Spec((rows.shape[0], axis.out), rows.dtype))
        return ctx.reshape(made, shape)
    before = None if None in tensor.shape[:place] else _count(tensor, place)
    blocks = ctx.reshape(tensor, (before, axis.size, width))
    made = ctx.emit("BATCH_MATMUL", [weights, blocks], Spec((before, axis.out, width), tensor.dtype))
    return ctx.reshape(made, shape)


def _count(tensor: Tensor, place: int) -> int:
    return int(np.prod(known(tensor.shape[:place]) or (1,)))


def _extrapolated(
    ctx: Context, node: ir.Node, tensor: Tensor, perm: Perm, active: Mapping[int, Axis]
) -> Tensor:
    """Outputs outside a cropped input: the extrapolation value."""
    masks = {place: interpolation.outside(axis) for place, axis in active.items()}
    if not any(mask.any() for mask in masks.values()):
        return tensor
    gone = np.zeros((1,) * tensor.rank, bool)
    for place, mask in masks.items():
        shape = [1] * tensor.rank
        shape[perm.index(place)] = len(mask)
        gone = gone | mask.reshape(shape)
    kept = ctx.binary("MUL", tensor, ctx.const((~gone).astype(np.float32)))
    value = nodes.attr_float(node, "extrapolation_value", 0.0)
    return ctx.binary("ADD", kept, ctx.const((gone * value).astype(np.float32)))
