"""What was an attribute became an input: axes, pads, starts, sizes, bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Operand, Result
from edgekit_converters.hub.nodes import (
    attr_float,
    attr_floats,
    attr_int,
    attr_ints,
    attr_str,
    has_attr,
    operand,
    refuse,
    required,
)
from edgekit_converters.hub.upgrade.table import below

_KINDS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"]
_REDUCTIONS = tuple(f"Reduce{kind}" for kind in _KINDS)


def _int_list(node: ir.Node, name: str) -> Sequence[int] | None:
    return attr_ints(node, name)


@below(18, *_REDUCTIONS)
@below(13, "ReduceSum")
def reduction(node: ir.Node, b: Builder) -> Result:
    """Axes as an input (ReduceSum 13, the others 18)."""
    if not has_attr(node, "axes"):
        return None
    return b.again(node, required(node, 0), _int_list(node, "axes"), drop=["axes"])


@below(13, "Squeeze", "Unsqueeze")
def squeeze(node: ir.Node, b: Builder) -> Result:
    """Axes as an input (13)."""
    if not has_attr(node, "axes"):
        return None
    return b.again(node, required(node, 0), _int_list(node, "axes"), drop=["axes"])


@below(10, "Slice")
def cut(node: ir.Node, b: Builder) -> Result:
    """Starts, ends, axes as inputs (10)."""
    starts, ends = _int_list(node, "starts"), _int_list(node, "ends")
    axes = _int_list(node, "axes")
    if starts is None or ends is None:
        refuse(node, "has no starts or ends", code="corrupt_source")
    axes = tuple(range(len(starts))) if axes is None else axes
    return b.again(node, required(node, 0), starts, ends, axes, drop=["starts", "ends", "axes"])


@below(2, "Pad")
def paddings(node: ir.Node, b: Builder) -> Result:
    """`paddings` was renamed `pads` (2)."""
    old = node.attributes.pop("paddings", None)
    if old is not None:
        node.attributes["pads"] = ir.AttrInt64s("pads", list(old.as_ints()))
    return None


@below(11, "Pad")
def pad(node: ir.Node, b: Builder) -> Result:
    """Pads and the value as inputs (11)."""
    x = required(node, 0)
    value = (
        b.scalar(attr_float(node, "value"), x) if attr_str(node, "mode", "constant") == "constant" else None
    )
    return b.again(node, x, _int_list(node, "pads"), value, drop=["pads", "value"])


@below(11, "Clip")
def clip(node: ir.Node, b: Builder) -> Result:
    """Bounds as inputs (11); the old defaults are the largest floats, no bounds at all."""
    x = required(node, 0)
    bounds = [
        b.scalar(attr_float(node, name), x) if has_attr(node, name) else None for name in ("min", "max")
    ]
    while bounds and bounds[-1] is None:
        bounds.pop()
    return b.again(node, x, *bounds, drop=["min", "max", "consumed_inputs"])


@below(10, "TopK")
def top_k(node: ir.Node, b: Builder) -> Result:
    """k as an input (10)."""
    return b.again(node, required(node, 0), [attr_int(node, "k")], drop=["k"])


@below(13, "Split")
def split(node: ir.Node, b: Builder) -> Result:
    """Sizes as an input (13)."""
    sizes = _int_list(node, "split")
    if sizes is None:
        return None
    return b.again(node, required(node, 0), sizes, drop=["split"])


@below(18, "Split")
def equal_split(node: ir.Node, b: Builder) -> Result:
    """Without sizes the number of outputs is written down (18)."""
    if operand(node, 1) is None and not has_attr(node, "num_outputs"):
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
    return None


@below(5, "Reshape")
def reshape(node: ir.Node, b: Builder) -> Result:
    """The shape as an input (5)."""
    return b("Reshape", required(node, 0), _int_list(node, "shape"))


@below(20, "DFT")
def dft(node: ir.Node, b: Builder) -> Result:
    """The axis as an input (20), with another default."""
    axis: Operand = np.asarray(attr_int(node, "axis", 1), np.int64)
    return b.again(node, required(node, 0), operand(node, 1), axis, drop=["axis"])


@below(6, "Tile")
def tile(node: ir.Node, b: Builder) -> Result:
    """One axis at a time (1) became one number for each axis (6)."""
    refuse(node, "Tile of opset 1 to 5 is not understood", code="unsupported_opset")


@below(9, "Upsample")
def upsample_scales(node: ir.Node, b: Builder) -> Result:
    """Scales as an input (9); of opset 1 only two of them."""
    scales = attr_floats(node, "scales")
    if scales is None:
        scales = (1.0, 1.0, attr_float(node, "height_scale", 1.0), attr_float(node, "width_scale", 1.0))
    node.resize_inputs(2)
    value = b.const(np.asarray(scales, np.float32))
    for name in ("scales", "height_scale", "width_scale"):
        node.attributes.pop(name, None)
    return resized(node, b, required(node, 0), value, scales)


@below(10, "Upsample")
@below(11, "Resize")
def resize_scales(node: ir.Node, b: Builder) -> Result:
    """Upsample became Resize (10), and Resize said where it samples (11)."""
    value = required(node, 1)
    known = None if value.const_value is None else value.const_value.numpy().reshape(-1).tolist()
    return resized(node, b, required(node, 0), value, known)


def resized(
    node: ir.Node, b: Builder, x: ir.Value, value: ir.Value, scales: Sequence[float] | None
) -> ir.Value:
    """Resize as opsets below 11 mean it: asymmetric; nearest is the lower pixel, the upper when shrinking."""
    mode = attr_str(node, "mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    if mode != "nearest" or scales is None or all(scale >= 1 for scale in scales):
        return _resize(b, x, value, mode, "floor")
    if all(scale <= 1 for scale in scales):
        return _resize(b, x, value, mode, "ceil")
    down = b.const(np.minimum(np.asarray(scales, np.float32), 1))
    up = b.const(np.maximum(np.asarray(scales, np.float32), 1))
    return _resize(b, _resize(b, x, down, mode, "ceil"), up, mode, "floor")


def _resize(b: Builder, x: ir.Value, scales: ir.Value, mode: str, nearest: str) -> ir.Value:
    return b(
        "Resize",
        x,
        None,
        scales,
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode=nearest if mode == "nearest" else None,
    )


@below(13, "Resize")
def resize_for_tensorflow(node: ir.Node, b: Builder) -> Result:
    """`tf_half_pixel_for_nn` (11 only) is half_pixel with another rounding."""
    if attr_str(node, "coordinate_transformation_mode") != "tf_half_pixel_for_nn":
        return None
    if attr_str(node, "mode", "nearest") != "nearest" or attr_str(node, "nearest_mode") != "floor":
        refuse(node, "tf_half_pixel_for_nn is understood with floor only", code="unsupported_attribute")
    return b.again(
        node, *node.inputs, coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil"
    )


@below(6, "Cast")
def cast(node: ir.Node, b: Builder) -> Result:
    """The type was a string (1)."""
    kind = ir.DataType[attr_str(node, "to").upper()]
    return b("Cast", required(node, 0), to=int(kind))
