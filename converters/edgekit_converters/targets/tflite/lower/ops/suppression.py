"""NonMaxSuppression, class by class.

Facts by trial (ai_edge_litert 2.3.0): NON_MAX_SUPPRESSION_V4 takes one class, pads its answer, wants corners
in order, drops a box that overlaps *as much* as the threshold, and chooses a box without area again and
again.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import D, bitcast
from edgekit_converters.targets.tflite.lower.parts import given, like, optional
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor


@lowers("NonMaxSuppression")
def non_max_suppression(ctx: Context, node: ir.Node) -> None:
    """Boxes kept for each batch and class: rows (batch, class, box)."""
    boxes, scores = ctx.tensor(given(node, 0)), ctx.tensor(given(node, 1))
    batches, classes = scores.shape[:2]
    if batches is None or classes is None:
        raise parts.refuse(node, "batches and classes are known only when the model runs", "dynamic_shape")
    boxes = _centred(ctx, boxes) if attr_int(node, "center_point_box") else _ordered_corners(ctx, boxes)
    limits = _limits(ctx, node, boxes)
    if limits is None:
        return ctx.set(node.outputs[0], ctx.const(np.zeros((0, 3), np.int64)))
    boxes = _apart(ctx, boxes, limits[1])
    limits = (limits[0], _above(ctx, limits[1]), limits[2])
    rows = [
        _kept(ctx, boxes, scores, batch, number, limits)
        for batch in range(batches)
        for number in range(classes)
    ]
    return ctx.set(node.outputs[0], ctx.cast(parts.joined(ctx, rows), D.INT64))


def _limits(ctx: Context, node: ir.Node, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Most boxes a class, overlap and score thresholds; None when no box is wanted."""
    most, overlap, score = (optional(node, index) for index in (2, 3, 4))
    if most is None:
        return None
    count = parts.scalar(ctx, parts.place(ctx, most))
    # The kernel takes at most as many as there are boxes.
    count = ctx.binary("MINIMUM", count, parts.scalar(ctx, parts.size(ctx, boxes, 1)))
    thresholds = [
        parts.scalar(ctx, ctx.tensor(value))
        if value is not None
        else ctx.const(np.array(default, np.float32))
        for value, default in ((overlap, 0.0), (score, -math.inf))
    ]
    return count, thresholds[0], thresholds[1]


def _columns(ctx: Context, boxes: Tensor) -> list[Tensor]:
    batch, count = boxes.shape[:2]
    return ctx.emit_all("SPLIT", [ctx.ints(2), boxes], [boxes.spec((batch, count, 1))] * 4, numSplits=4)


def _ordered_corners(ctx: Context, boxes: Tensor) -> Tensor:
    """ONNX takes any two opposite corners, the kernel the lower one first."""
    y1, x1, y2, x2 = _columns(ctx, boxes)
    low = [ctx.binary("MINIMUM", y1, y2), ctx.binary("MINIMUM", x1, x2)]
    high = [ctx.binary("MAXIMUM", y1, y2), ctx.binary("MAXIMUM", x1, x2)]
    return parts.joined(ctx, [*low, *high], 2)


def _centred(ctx: Context, boxes: Tensor) -> Tensor:
    """(x, y, width, height) by the centre as (y1, x1, y2, x2)."""
    x, y, w, h = _columns(ctx, boxes)
    half = parts.times(ctx, w, 0.5), parts.times(ctx, h, 0.5)
    edges = [parts.minus(ctx, y, half[1]), parts.minus(ctx, x, half[0])]
    return parts.joined(ctx, [*edges, parts.plus(ctx, y, half[1]), parts.plus(ctx, x, half[0])], 2)


def _apart(ctx: Context, boxes: Tensor, threshold: Tensor) -> Tensor:
    """Boxes that overlap with none by ONNX's rules are set where none is.

    The kernel drops a chosen box because it overlaps with itself: one without area, and every one when
    the threshold is 1 or more, would be chosen again and again. Box i goes to (2 i + 2) m, with m beyond
    all coordinates, and has the side m.
    """
    y1, x1, y2, x2 = _columns(ctx, boxes)
    area = parts.times(ctx, parts.minus(ctx, y2, y1), parts.minus(ctx, x2, x1))
    flat = parts.compare(ctx, "LESS_EQUAL", area, like(ctx, area, 0.0))
    never = parts.compare(ctx, "GREATER_EQUAL", threshold, like(ctx, threshold, 1.0))
    lone = parts.compare(ctx, "LOGICAL_OR", flat, never)
    beyond = parts.plus(ctx, parts.reduced(ctx, "REDUCE_MAX", ctx.unary("ABS", boxes), [0, 1, 2]), 1.0)
    number = parts.plus(ctx, parts.times(ctx, parts.iota(ctx, boxes, 1, D.FLOAT), 2.0), 2.0)
    low, high = parts.times(ctx, number, beyond), parts.times(ctx, parts.plus(ctx, number, 1.0), beyond)
    away = parts.joined(ctx, [low, low, high, high], 2)
    return parts.select(ctx, lone, away, boxes)


def _above(ctx: Context, threshold: Tensor) -> Tensor:
    """The next larger float: the kernel drops boxes that overlap as much, ONNX those that overlap more.

    At most 1: beyond, a box would not even drop itself. See `_apart` for what 1 means in ONNX.
    """
    larger = bitcast(ctx, parts.plus(ctx, bitcast(ctx, threshold, D.INT32), 1), D.FLOAT)
    # Kernels flush what is smaller than the smallest normal number to zero.
    larger = ctx.binary("MAXIMUM", larger, like(ctx, larger, float(np.finfo(np.float32).tiny)))
    return ctx.binary("MINIMUM", larger, like(ctx, larger, 1.0))


def _kept(
    ctx: Context,
    boxes: Tensor,
    scores: Tensor,
    batch: int,
    number: int,
    limits: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Rows (batch, class, box) of one class."""
    own = _picked(ctx, boxes, [batch], (boxes.shape[1], 4))
    row = _picked(ctx, scores, [batch, number], (scores.shape[2],))
    count, overlap, score = limits
    outputs = [Spec((None,), D.INT32), Spec((), D.INT32)]
    places, valid = ctx.emit_all("NON_MAX_SUPPRESSION_V4", [own, row, count, overlap, score], outputs)
    sure = ctx.emit("SLICE", [places, ctx.ints([0]), ctx.reshape(valid, (1,))], places.spec((None,)))
    column = ctx.reshape(sure, (None, 1))
    head = ctx.const(np.array([[batch, number]], np.int32))
    wide = parts.joined(ctx, [parts.size(ctx, sure, 0), ctx.ints([2])])
    return parts.joined(ctx, [ctx.emit("BROADCAST_TO", [head, wide], head.spec((None, 2))), column], 1)


def _picked(ctx: Context, tensor: Tensor, places: list[int], shape: tuple[int | None, ...]) -> Tensor:
    begin = [*places, *([0] * len(shape))]
    size = [*([1] * len(places)), *([-1] * len(shape))]
    whole = (*([1] * len(places)), *shape)
    cut = ctx.emit("SLICE", [tensor, ctx.ints(begin), ctx.ints(size)], tensor.spec(whole))
    return ctx.reshape(cut, shape)
