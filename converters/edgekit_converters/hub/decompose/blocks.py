"""Rearrangements of blocks of pixels: DepthToSpace, SpaceToDepth, Col2Im."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_int, attr_ints, attr_str, dims, ints, operand, required


def image_of(x: ir.Value) -> tuple[int, int, int] | None:
    """Channels, height and width of a batch of images, None when one is not known."""
    known = tuple(size for size in (dims(x) or ())[1:] if size is not None)
    return (known[0], known[1], known[2]) if len(known) == 3 else None


@rule("DepthToSpace")
def depth_to_space(node: ir.Node, b: Builder) -> Result:
    """Split the channels, interleave."""
    x, block = required(node, 0), attr_int(node, "blocksize")
    inner = image_of(x)
    if inner is None:
        return None
    n, (c, h, w) = b.size(x, 0), inner
    depth = c // (block * block)
    if attr_str(node, "mode", "DCR") == "DCR":
        split = b("Transpose", b.reshape(x, n, block, block, depth, h, w), perm=[0, 3, 4, 1, 5, 2])
    else:
        split = b("Transpose", b.reshape(x, n, depth, block, block, h, w), perm=[0, 1, 4, 2, 5, 3])
    return b.reshape(split, n, depth, h * block, w * block)


@rule("SpaceToDepth")
def space_to_depth(node: ir.Node, b: Builder) -> Result:
    """Split height and width, move the blocks in front of the channels."""
    x, block = required(node, 0), attr_int(node, "blocksize")
    inner = image_of(x)
    if inner is None:
        return None
    n, (c, h, w) = b.size(x, 0), inner
    split = b.reshape(x, n, c, h // block, block, w // block, block)
    moved = b("Transpose", split, perm=[0, 3, 5, 1, 2, 4])
    return b.reshape(moved, n, c * block * block, h // block, w // block)


@rule("Col2Im")
def col2im(node: ir.Node, b: Builder) -> Result:
    """A transposed convolution whose weights pick one place of the block each."""
    x, image, block = required(node, 0), ints(operand(node, 1)), ints(operand(node, 2))
    sizes = dims(x)
    if image is None or block is None or sizes is None or sizes[1] is None or sizes[0] is None:
        return None
    count = len(block)
    strides = attr_ints(node, "strides") or (1,) * count
    dilations = attr_ints(node, "dilations") or (1,) * count
    pads = attr_ints(node, "pads") or (0,) * (2 * count)
    whole = [size + pads[i] + pads[i + count] for i, size in enumerate(image)]
    steps = [
        (n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(whole, block, dilations, strides, strict=True)
    ]
    places = math.prod(block)
    channels = sizes[1] // places
    weights = np.tile(np.eye(places, dtype=np.float32), (channels, 1)).reshape(-1, 1, *block)
    # What the last step leaves over belongs to the image all the same.
    over = [
        n - ((o - 1) * s + (k - 1) * d + 1)
        for n, o, s, k, d in zip(whole, steps, strides, block, dilations, strict=True)
    ]
    grid = b.reshape(x, sizes[0], sizes[1], *steps)
    return b(
        "ConvTranspose",
        grid,
        b.const(weights),
        group=channels,
        kernel_shape=list(block),
        strides=list(strides),
        dilations=list(dilations),
        pads=list(pads),
        output_padding=over,
    )
