"""Convolutions in simpler ones: one group, two axes of pixels, transposed ones as plain ones.

Only nodes that a lowering does not accept come here. Specification: Operators.md, Conv 11,
ConvTranspose 11, DeformConv 19.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.sampling import Image, linear
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    attr_int,
    attr_ints,
    operand,
    rank,
    refuse,
    required,
    static_shape,
)

_WINDOW = ("kernel_shape", "strides", "dilations", "pads", "output_padding")


def _attributes(node: ir.Node) -> dict[str, list[int]]:
    return {name: list(found) for name in _WINDOW if (found := attr_ints(node, name)) is not None}


@rule("Conv", "ConvTranspose")
def wider(node: ir.Node, b: Builder) -> Result:
    """One axis of pixels becomes two."""
    x, weight = required(node, 0), required(node, 1)
    given = _attributes(node)
    if rank(x) != 3 or "pads" not in given or "kernel_shape" not in given:
        return None
    begin, end = given["pads"]
    given["pads"] = [0, begin, 0, end]
    for name, value in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0)):
        if name in given:
            given[name] = [value, *given[name]]
    inputs = [b("Unsqueeze", x, [2]), b("Unsqueeze", weight, [2]), operand(node, 2)]
    made = b(node.op_type, *inputs, group=attr_int(node, "group", 1), **given)
    return b("Squeeze", made, [2])


@rule("Conv", "ConvTranspose")
def by_group(node: ir.Node, b: Builder) -> Result:
    """Each group alone, and their results side by side."""
    x, weight, bias = required(node, 0), required(node, 1), operand(node, 2)
    groups, sizes = attr_int(node, "group", 1), static_shape(weight)
    if groups == 1 or sizes is None:
        return None
    if not 0 < groups <= sizes[0] or sizes[0] % groups:
        refuse(node, f"{groups} groups of {sizes[0]} filters", code="corrupt_source")
    parts = b.many("Split", groups, x, axis=1, num_outputs=groups)
    weights = b.many("Split", groups, weight, axis=0, num_outputs=groups)
    biases: tuple[ir.Value | None, ...] = (None,) * groups
    if bias is not None:
        biases = b.many("Split", groups, bias, axis=0, num_outputs=groups)
    made = [
        b(node.op_type, part, w, item, **_attributes(node))
        for part, w, item in zip(parts, weights, biases, strict=True)
    ]
    return b("Concat", *made, axis=1)


@rule("ConvTranspose")
def stuffed(node: ir.Node, b: Builder) -> Result:
    """Zeros between the pixels, then a convolution with the weights turned round."""
    x, weight, bias = required(node, 0), required(node, 1), operand(node, 2)
    sizes, shape, given = static_shape(x), static_shape(weight), _attributes(node)
    if sizes is None or shape is None or attr_int(node, "group", 1) != 1 or len(given) < len(_WINDOW):
        return None
    count = len(sizes) - 2
    strides, dilations = given["strides"], given["dilations"]
    wide = x
    if any(stride > 1 for stride in strides):
        apart = [item for size in sizes[2:] for item in (size, 1)]
        gaps = [item for stride in strides for item in (0, stride - 1)]
        wide = b("Pad", b.reshape(x, *sizes[:2], *apart), [0] * (2 * count + 2) + [0, 0, *gaps], 0.0)
        wide = b.reshape(wide, *sizes[:2], *(n * s for n, s in zip(sizes[2:], strides, strict=True)))
    reach = [(k - 1) * d for k, d in zip(shape[2:], dilations, strict=True)]
    begins = [r - p for r, p in zip(reach, given["pads"][:count], strict=True)]
    # The zeros behind the last pixel are there already.
    ends = [
        r - p + extra - (stride - 1)
        for r, p, extra, stride in zip(
            reach, given["pads"][count:], given["output_padding"], strides, strict=True
        )
    ]
    wide = b("Pad", wide, [0, 0, *begins, 0, 0, *ends], 0.0) if any((*begins, *ends)) else wide
    axes, last = list(range(2, 2 + count)), np.iinfo(np.int64).min
    turned = b("Slice", weight, [-1] * count, [int(last)] * count, axes, [-1] * count)
    turned = b("Transpose", turned, perm=[1, 0, *axes])
    kernel = list(shape[2:])
    zeros, ones = [0] * (2 * count), [1] * count
    return b("Conv", wide, turned, bias, kernel_shape=kernel, dilations=dilations, strides=ones, pads=zeros)


@rule("DeformConv")
def deformed(node: ir.Node, b: Builder) -> Result:
    """Pixels read at the moved places, then one matrix product."""
    x, weight, offset = required(node, 0), required(node, 1), required(node, 2)
    bias, mask = operand(node, 3), operand(node, 4)
    sizes, shape, moved = static_shape(x), static_shape(weight), static_shape(offset)
    if sizes is None or shape is None or moved is None or len(sizes) != 4:
        return None
    if attr_int(node, "group", 1) != 1:
        return None
    groups, places = attr_int(node, "offset_group", 1), shape[2] * shape[3]
    n, channels, new = sizes[0], sizes[1] // groups, moved[2:]
    count = math.prod(new)
    base = _regular(node, shape[2:], new)
    columns = []
    for group in range(groups):
        first = group * places
        pixels = b.slice(x, 1, group * channels, (group + 1) * channels) if groups > 1 else x
        image = Image(b, pixels, (n, channels, *sizes[2:]))
        shifts = b.reshape(b.slice(offset, 1, 2 * first, 2 * (first + places)), n, places, 2, count)
        points = [
            b.reshape(b("Add", b("Squeeze", b.slice(shifts, 2, a, a + 1), [2]), b.const(base[a])), n, -1)
            for a in (0, 1)
        ]
        found = b.reshape(linear(b, image, points), n, places, count, channels)
        if mask is not None:
            part = b.reshape(b.slice(mask, 1, first, first + places), n, places, count, 1)
            found = b("Mul", found, part)
        columns.append(b("Transpose", found, perm=[0, 3, 1, 2]))
    whole = columns[0] if groups == 1 else b("Concat", *columns, axis=1)
    flat = b.reshape(whole, n, sizes[1] * places, count)
    y = b.reshape(b("MatMul", b.reshape(weight, shape[0], -1), flat), n, shape[0], *new)
    return y if bias is None else b("Add", y, b.reshape(bias, -1, 1, 1))


def _regular(
    node: ir.Node, kernel: tuple[int, ...], new: tuple[int, ...]
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Rows and columns (places in the kernel, windows) that an offset of zero reads."""
    strides, pads = attr_ints(node, "strides") or (1, 1), attr_ints(node, "pads") or (0, 0, 0, 0)
    dilations = attr_ints(node, "dilations") or (1, 1)
    lines = [
        np.arange(k)[:, None] * d + np.arange(out)[None, :] * s - p
        for k, out, s, d, p in zip(kernel, new, strides, dilations, pads[:2], strict=True)
    ]
    shape = (kernel[0], kernel[1], new[0], new[1])
    rows = np.broadcast_to(lines[0][:, None, :, None], shape)
    columns = np.broadcast_to(lines[1][None, :, None, :], shape)
    return [item.reshape(kernel[0] * kernel[1], -1).astype(np.float32) for item in (rows, columns)]
