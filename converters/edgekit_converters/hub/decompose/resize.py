"""Resize as one matrix product, or one Gather, for each axis that changes.

Specification: Operators.md, Resize 19. Coordinates and weights are written as nodes, so that scales
and regions may be computed; folding makes constants of them where they are not. Sizes must be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    attr_float,
    attr_int,
    attr_ints,
    attr_str,
    constant,
    front,
    is_float,
    operand,
    required,
    static_shape,
)

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Axis:
    """One axis to resize: its place, sizes, scale, and where the region begins and ends."""

    place: int
    old: int
    new: int
    scale: ir.Value
    start: ir.Value | None
    end: ir.Value | None


@rule("Resize")
def resize(node: ir.Node, b: Builder) -> Result:
    """See the module."""
    x, mode = required(node, 0), attr_str(node, "mode", "nearest")
    old, new = static_shape(x), static_shape(node.outputs[0])
    if old is None or new is None or (mode != "nearest" and not is_float(x)):
        return None
    axes = _axes(node, b, old, new)
    if axes is None:
        return None
    value = b.cast(x, ir.DataType.FLOAT) if x.dtype in _HALVES else x
    outside: ir.Value | None = None
    for axis in axes:
        points = coordinates(node, b, axis)
        if attr_str(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
            outside = _outside(b, axis, points, len(old), outside)
        if mode == "nearest":
            value = b("Gather", value, _nearest(node, b, axis, points), axis=axis.place)
        else:
            value = along(
                b, value, b.cast(_weights(node, b, axis, points), value.dtype), axis.place, len(old)
            )
    if outside is not None:
        value = b("Where", outside, b.scalar(attr_float(node, "extrapolation_value"), value), value)
    return b.cast(value, x.dtype)


def _axes(node: ir.Node, b: Builder, old: tuple[int, ...], new: tuple[int, ...]) -> list[Axis] | None:
    """The axes that change, with their scales; None when the scale is not known."""
    places = front(attr_ints(node, "axes") or tuple(range(len(old))), len(old))
    scales, sizes, roi = operand(node, 2), operand(node, 3), operand(node, 1)
    crop = attr_str(node, "coordinate_transformation_mode") == "tf_crop_and_resize"
    if sizes is not None and static_shape(sizes) != (0,):
        factors = _from_sizes(node, b, sizes, [old[p] for p in places], [new[p] for p in places])
    elif scales is not None:
        factors = scales
    else:
        return None
    known, region = constant(scales), roi if crop else None
    found = []
    for index, place in enumerate(places):
        same = known is None or float(known[index]) == 1.0 or factors is not scales
        if old[place] == new[place]:
            if crop and not _whole(region, index, len(places)):
                # Onnxruntime does not crop along an axis that keeps its size; the specification says it does.
                return None
            if crop or attr_int(node, "antialias") or (same and _stays(node, sizes, known)):
                continue
        scale = b.slice(factors, 0, index, index + 1)
        start = end = None
        if region is not None:
            start = b.cast(b.slice(region, 0, index, index + 1), ir.DataType.FLOAT)
            last = index + len(places)
            end = b.cast(b.slice(region, 0, last, last + 1), ir.DataType.FLOAT)
        found.append(Axis(place, old[place], new[place], scale, start, end))
    return found


def _whole(region: ir.Value | None, index: int, count: int) -> bool:
    """Whether the region reaches from 0 to 1 along an axis."""
    known = constant(region)
    return known is not None and float(known[index]) == 0 and float(known[index + count]) == 1


def _stays(node: ir.Node, sizes: ir.Value | None, known: object) -> bool:
    """Whether an axis of unchanged size is copied: its scale is 1, written down or as the sizes say."""
    if attr_str(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    return sizes is not None or known is not None


def _from_sizes(node: ir.Node, b: Builder, sizes: ir.Value, old: list[int], new: list[int]) -> ir.Value:
    """New size over old one; one ratio for all axes where the aspect is kept."""
    before = b.const(np.asarray(old, np.float32))
    policy = attr_str(node, "keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return b("Div", b.const(np.asarray(new, np.float32)), before)
    ratios = b("Div", b.cast(sizes, ir.DataType.FLOAT), before)
    kind = "ReduceMin" if policy == "not_larger" else "ReduceMax"
    return b("Expand", b(kind, ratios, [0], keepdims=1), [len(old)])


def coordinates(node: ir.Node, b: Builder, axis: Axis) -> ir.Value:
    """Where each new point lies among the old ones, float32."""
    mode = attr_str(node, "coordinate_transformation_mode", "half_pixel")
    steps = b.const(np.arange(axis.new, dtype=np.float32))
    if mode == "asymmetric":
        return b("Div", steps, axis.scale)
    if mode == "align_corners":
        if axis.new == 1:
            return b.const(np.zeros(1, np.float32))
        if operand(node, 3) is None and constant(operand(node, 2)) is None:
            # A computed scale: onnx's reference takes the length before it is rounded down.
            length = b("Mul", axis.scale, float(axis.old))
            return b("Div", b("Mul", steps, float(axis.old - 1)), b("Sub", length, 1.0))
        # In this order, as onnxruntime computes: the last point is the last pixel and not a bit more.
        return b("Div", b("Mul", steps, float(axis.old - 1)), float(axis.new - 1))
    if mode == "tf_crop_and_resize" and axis.start is not None and axis.end is not None:
        last = float(axis.old - 1)
        if axis.new == 1:
            return b("Mul", b("Add", axis.start, axis.end), 0.5 * last)
        length = b("Mul", b("Mul", steps, b("Sub", axis.end, axis.start)), last)
        return b("Add", b("Mul", axis.start, last), b("Div", length, float(axis.new - 1)))
    if mode == "pytorch_half_pixel" and axis.new == 1:
        return b.const(np.zeros(1, np.float32))
    points = b("Sub", b("Div", b("Add", steps, 0.5), axis.scale), 0.5)
    if mode == "half_pixel_symmetric":
        adjustment = b("Div", float(axis.new), b("Mul", axis.scale, float(axis.old)))
        points = b("Add", b("Mul", b("Sub", 1.0, adjustment), axis.old / 2), points)
    return points


def _outside(b: Builder, axis: Axis, points: ir.Value, size: int, other: ir.Value | None) -> ir.Value:
    """Which results lie outside of the image, this axis and those before."""
    here = b("Or", b("Less", points, 0.0), b("Greater", points, float(axis.old - 1)))
    here = b.reshape(here, *[-1 if place == axis.place else 1 for place in range(size)])
    return here if other is None else b("Or", other, here)


def _nearest(node: ir.Node, b: Builder, axis: Axis, points: ir.Value) -> ir.Value:
    kind = attr_str(node, "nearest_mode", "round_prefer_floor")
    if kind == "round_prefer_floor":
        points = b("Ceil", b("Sub", points, 0.5))
    elif kind == "round_prefer_ceil":
        points = b("Floor", b("Add", points, 0.5))
    else:
        points = b("Floor" if kind == "floor" else "Ceil", points)
    return b("Cast", b("Clip", points, 0.0, float(axis.old - 1)), to=int(ir.DataType.INT64))


def _weights(node: ir.Node, b: Builder, axis: Axis, points: ir.Value) -> ir.Value:
    """The matrix (new, old) that is applied along the axis."""
    cubic, a = attr_str(node, "mode") == "cubic", attr_float(node, "cubic_coeff_a", -0.75)
    places = b.const(np.arange(axis.old, dtype=np.float32).reshape(1, -1))
    column = b.reshape(points, -1, 1)
    if attr_int(node, "antialias"):
        return _smooth(node, b, axis, column, a if cubic else None)
    if cubic and attr_int(node, "exclude_outside"):
        return _unit(b, _cubic(b, b("Abs", b("Sub", places, column)), a))
    if not cubic:
        inside = b("Clip", column, 0.0, float(axis.old - 1))
        return _triangle(b, b("Abs", b("Sub", places, inside)))
    lower = b("Floor", column)
    found: ir.Value | None = None
    for step in (-1.0, 0.0, 1.0, 2.0):
        tap = b("Add", lower, step)
        weight = _cubic(b, b("Abs", b("Sub", column, tap)), a)
        hit = b("Equal", places, b("Clip", tap, 0.0, float(axis.old - 1)))
        part = b("Where", hit, weight, b.scalar(0, weight))
        found = part if found is None else b("Add", found, part)
    assert found is not None
    return found


def _smooth(node: ir.Node, b: Builder, axis: Axis, column: ir.Value, a: float | None) -> ir.Value:
    """The kernel widened by the scale; what falls outside counts for the border, or not at all."""
    beyond = 0 if attr_int(node, "exclude_outside") else -(-2 * axis.old // axis.new) + 3
    reach = np.arange(-beyond, axis.old + beyond)
    distance = b("Sub", b.const(reach.astype(np.float32).reshape(1, -1)), column)
    distance = b("Abs", b("Mul", distance, b("Min", axis.scale, 1.0)))
    weights = _unit(b, _triangle(b, distance) if a is None else _cubic(b, distance, a))
    if not beyond:
        return weights
    border = np.clip(reach, 0, axis.old - 1)[:, None] == np.arange(axis.old)[None, :]
    return b("MatMul", weights, b.const(border.astype(np.float32)))


def _unit(b: Builder, weights: ir.Value) -> ir.Value:
    """Weights that add up to one."""
    return b("Div", weights, b("ReduceSum", weights, [1], keepdims=1))


def _triangle(b: Builder, distance: ir.Value) -> ir.Value:
    return b("Max", b("Sub", 1.0, distance), 0.0)


def _cubic(b: Builder, d: ir.Value, a: float) -> ir.Value:
    """Keys' kernel of the distance, 0 from 2 on."""
    near = b("Add", b("Mul", b("Mul", b("Sub", b("Mul", d, a + 2), a + 3), d), d), 1.0)
    far = b("Mul", b("Add", b("Mul", b("Sub", b("Mul", d, a), 5 * a), d), 8 * a), d)
    far = b("Where", b("Less", d, 2.0), b("Sub", far, 4 * a), b.scalar(0, d))
    return b("Where", b("Less", d, 1.0), near, far)


def along(b: Builder, x: ir.Value, matrix: ir.Value, place: int, size: int) -> ir.Value:
    """`matrix` (new, old) applied along one axis."""
    if place == size - 2:
        return b("MatMul", matrix, x)
    turned = b("Transpose", matrix, perm=[1, 0])
    if place == size - 1:
        return b("MatMul", x, turned)
    order = [axis for axis in range(size) if axis != place] + [place]
    made = b("MatMul", b("Transpose", x, perm=order), turned)
    return b("Transpose", made, perm=[order.index(axis) for axis in range(size)])
