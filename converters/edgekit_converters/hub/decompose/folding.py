"""Col2Im with a block (or image) shape that is fed: every place is computed, and the elements are added up.

`blocks` has the form for known shapes, a transposed convolution. Specification: Operators.md, Col2Im 18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_ints, numpy_dtype, required, static_shape


@dataclass(frozen=True)
class Axis:
    """One axis of the image: its size, the block's (an int64 vector of one), and how the block moves."""

    size: int
    block: ir.Value
    stride: int
    dilation: int
    before: int
    after: int


@rule("Col2Im")
def col2im(node: ir.Node, b: Builder) -> Result:
    """Elements outside of the image are added as zeros to its first place."""
    x = required(node, 0)
    shape, out = static_shape(x), static_shape(node.outputs[0])
    if shape is None or out is None or 0 in (*shape, *out) or shape[1] % out[1]:
        return None
    batch, channels, *image = out
    columns = shape[1] // channels * shape[2]
    place, inside = _places(b, _axes(node, b, image), shape[1] // channels, shape[2])
    place = b.reshape(b("Where", inside, place, b.const(np.zeros((), np.int64))), 1, 1, columns)
    value = b.reshape(x, batch, channels, columns)
    value = b("Where", b.reshape(inside, 1, 1, columns), value, b.scalar(0, value))
    empty = b.const(np.zeros((batch, channels, math.prod(image)), numpy_dtype(x)))
    everywhere = b("Expand", place, [batch, channels, columns])
    return b.reshape(b("ScatterElements", empty, everywhere, value, axis=2, reduction="add"), *out)


def _axes(node: ir.Node, b: Builder, image: list[int]) -> list[Axis]:
    count = len(image)
    strides = attr_ints(node, "strides") or (1,) * count
    dilations = attr_ints(node, "dilations") or (1,) * count
    pads = attr_ints(node, "pads") or (0,) * (2 * count)
    blocks = [b.slice(required(node, 2), 0, axis, axis + 1) for axis in range(count)]
    return [
        Axis(image[i], blocks[i], strides[i], dilations[i], pads[i], pads[i + count]) for i in range(count)
    ]


def _places(b: Builder, axes: list[Axis], taps: int, steps: int) -> tuple[ir.Value, ir.Value]:
    """For each tap of the block and each of its steps the place in the flat image, and whether it is one."""
    tap, step = b.const(np.arange(taps, dtype=np.int64)), b.const(np.arange(steps, dtype=np.int64))
    found: tuple[ir.Value, ir.Value] | None = None
    weight = 1
    for axis in reversed(axes):
        reach = b("Mul", b("Sub", axis.block, 1), axis.dilation)
        room = b("Sub", b.const(np.asarray([axis.size + axis.before + axis.after - 1], np.int64)), reach)
        count = b("Add", b("Div", room, axis.stride), 1)
        own = b("Sub", b("Mul", b("Mod", tap, axis.block), axis.dilation), axis.before)
        moved = b("Mul", b("Mod", step, count), axis.stride)
        place = b("Add", b.reshape(own, taps, 1), b.reshape(moved, 1, steps))
        within = b("And", b("GreaterOrEqual", place, 0), b("Less", place, axis.size))
        flat = b("Mul", place, weight)
        found = (flat, within) if found is None else (b("Add", found[0], flat), b("And", found[1], within))
        tap, step, weight = b("Div", tap, axis.block), b("Div", step, count), weight * axis.size
    assert found is not None
    return found
