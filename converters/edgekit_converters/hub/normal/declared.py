"""Sizes that are fed, but that the declared shape of the result says already.

A model that declares an output of fixed sizes promises them: a Reshape that reads its shape from an
input can have no other, a TopK no other k. What the declaration does not determine stays as it is.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import (
    attr_int,
    attr_ints,
    axis_of,
    constant,
    dims,
    front,
    has_attr,
    numpy_dtype,
    operand,
    rank,
    required,
    static_shape,
)
from edgekit_converters.hub.normal.table import rule

_REDUCTIONS = tuple(
    f"Reduce{kind}"
    for kind in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
)


def _fed(node: ir.Node, place: int) -> bool:
    value = operand(node, place)
    return value is not None and constant(value) is None


@rule("Reshape", "Squeeze", "Unsqueeze")
def reshape(node: ir.Node, b: Builder) -> Result:
    """The result's sizes are all there is to say."""
    sizes = static_shape(node.outputs[0])
    if sizes is None or not _fed(node, 1):
        return None
    return b.reshape(required(node, 0), *sizes) if sizes else b.reshape(required(node, 0), [])


@rule("Reshape")
def one_free(node: ir.Node, b: Builder) -> Result:
    """With one free size, the batch as a rule, the shape need not be computed: that size is -1."""
    sizes = dims(node.outputs[0])
    if sizes is None or not _fed(node, 1) or sizes.count(None) != 1 or 0 in sizes:
        return None
    return b.reshape(required(node, 0), [-1 if size is None else size for size in sizes])


@rule("Expand")
def expand(node: ir.Node, b: Builder) -> Result:
    """Expanded to the result's sizes."""
    sizes = static_shape(node.outputs[0])
    return None if sizes is None or not _fed(node, 1) else b("Expand", required(node, 0), list(sizes))


@rule("ConstantOfShape")
def constant_of_shape(node: ir.Node, b: Builder) -> Result:
    """Filled to the result's sizes."""
    sizes = static_shape(node.outputs[0])
    return None if sizes is None or not _fed(node, 0) else b.again(node, list(sizes))


@rule("Tile")
def tile(node: ir.Node, b: Builder) -> Result:
    """New size over old one."""
    old, new = static_shape(required(node, 0)), static_shape(node.outputs[0])
    if old is None or new is None or not _fed(node, 1) or 0 in old:
        return None
    return b("Tile", required(node, 0), [n // o for o, n in zip(old, new, strict=True)])


@rule("CenterCropPad")
def center_crop_pad(node: ir.Node, b: Builder) -> Result:
    """The wanted sizes are those of the result."""
    sizes = static_shape(node.outputs[0])
    if sizes is None or not _fed(node, 1):
        return None
    axes = front(attr_ints(node, "axes") or tuple(range(len(sizes))), len(sizes))
    return b.again(node, required(node, 0), [sizes[axis] for axis in axes])


@rule("TopK")
def top_k(node: ir.Node, b: Builder) -> Result:
    """k is the size along the axis."""
    sizes = static_shape(node.outputs[0]) or static_shape(node.outputs[-1])
    if sizes is None or not _fed(node, 1):
        return None
    return b.again(node, required(node, 0), [sizes[axis_of(node, len(sizes), default=-1)]])


@rule("OneHot")
def one_hot(node: ir.Node, b: Builder) -> Result:
    """The depth is the size of the new axis."""
    sizes = static_shape(node.outputs[0])
    if sizes is None or not _fed(node, 1):
        return None
    depth = np.asarray(sizes[axis_of(node, len(sizes), default=-1)], numpy_dtype(required(node, 1)))
    return b.again(node, required(node, 0), depth, required(node, 2))


@rule("Split")
def split(node: ir.Node, b: Builder) -> Result:
    """The results' sizes along the axis."""
    size = rank(required(node, 0))
    if size is None or not _fed(node, 1):
        return None
    shapes = [static_shape(out) for out in node.outputs]
    known = [shape[axis_of(node, size)] for shape in shapes if shape is not None]
    return b.again(node, required(node, 0), known) if len(known) == len(shapes) else None


@rule("Resize")
def resize(node: ir.Node, b: Builder) -> Result:
    """The new sizes."""
    sizes, size = static_shape(node.outputs[0]), rank(required(node, 0))
    if sizes is None or size is None or not _fed(node, 3):
        return None
    if has_attr(node, "keep_aspect_ratio_policy"):
        return None
    axes = front(attr_ints(node, "axes") or tuple(range(size)), size)
    return b.again(node, required(node, 0), operand(node, 1), None, [sizes[axis] for axis in axes])


@rule(*_REDUCTIONS)
def reduction(node: ir.Node, b: Builder) -> Result:
    """The axes whose size changed, when only one choice fits. Axes of size 1 do not matter."""
    old, new = static_shape(required(node, 0)), static_shape(node.outputs[0])
    if old is None or new is None or not _fed(node, 1):
        return None
    choices = [
        axes
        for count in range(1, len(old) + 1)
        for axes in itertools.combinations([a for a, size in enumerate(old) if size != 1], count)
        if _reduced(old, axes, keep=attr_int(node, "keepdims", 1) == 1) == _shrunk(node, new)
    ]
    if len(choices) != 1:
        return None
    axes = choices[0]
    if attr_int(node, "keepdims", 1):
        return b.again(node, required(node, 0), list(axes))
    made = b.again(node, required(node, 0), list(axes), keepdims=0)[0]
    return made if static_shape(made) == new else b.reshape(made, *new) if new else b.reshape(made, [])


def _reduced(old: tuple[int, ...], axes: tuple[int, ...], *, keep: bool) -> tuple[int, ...]:
    if keep:
        return tuple(1 if axis in axes else size for axis, size in enumerate(old))
    return tuple(size for axis, size in enumerate(old) if axis not in axes and size != 1)


def _shrunk(node: ir.Node, new: tuple[int, ...]) -> tuple[int, ...]:
    return new if attr_int(node, "keepdims", 1) else tuple(size for size in new if size != 1)
