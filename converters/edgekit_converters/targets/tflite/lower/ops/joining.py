"""Putting together and taking apart: Concat, Split, Tile, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, attr_str, axis_of
from edgekit_converters.targets.tflite.lower import layout, parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import D, as_bits, from_bits
from edgekit_converters.targets.tflite.lower.parts import given, optional
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Shape, Tensor, known

_SPLIT = frozenset({D.FLOAT, D.INT8, D.UINT8, D.INT16, D.INT32, D.INT64})
_BLOCKED = frozenset({D.FLOAT, D.INT8, D.UINT8, D.INT32, D.INT64})
_CONCAT_RANK = 6


@lowers("Concat", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def concat(ctx: Context, node: ir.Node) -> None:
    """Along one axis, in whatever order the inputs are held."""
    values = [given(node, index) for index in range(len(node.inputs))]
    axis = axis_of(node, ctx.rank(values[0]))
    if len(values) == 1:
        return ctx.alias(node.outputs[0], values[0], layout.identity(ctx.rank(values[0])))
    tensors, perm = ctx.align(values)
    dtype = tensors[0].dtype
    pieces = [as_bits(ctx, tensor) for tensor in tensors]
    if pieces[0].quant is not None:
        spec = ctx.output(node, perm)
        return ctx.set(node.outputs[0], ctx.emit("CONCATENATION", pieces, spec, axis=perm.index(axis)), perm)
    return ctx.set(node.outputs[0], from_bits(ctx, _joined(ctx, node, pieces, perm.index(axis)), dtype), perm)


def _joined(ctx: Context, node: ir.Node, pieces: Sequence[Tensor], axis: int) -> Tensor:
    """The kernel takes ranks up to 6: more axes are made three."""
    if pieces[0].rank <= _CONCAT_RANK:
        return parts.joined(ctx, pieces, axis)
    shapes = [known(piece.shape) for piece in pieces]
    if any(shape is None for shape in shapes):
        raise parts.refuse(node, "more than 6 axes of unknown sizes", "dynamic_shape")
    flat = [ctx.reshape(piece, _three(piece.shape, axis)) for piece in pieces]
    whole = parts.joined(ctx, flat, 1)
    shape = list(pieces[0].shape)
    shape[axis] = whole.shape[1]
    return ctx.reshape(whole, shape)


def _three(shape: Shape, axis: int) -> tuple[int, int, int]:
    sizes = known(shape) or ()
    before, after = 1, 1
    for place, size in enumerate(sizes):
        before *= size if place < axis else 1
        after *= size if place > axis else 1
    return before, sizes[axis], after


@lowers("Split", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def split(ctx: Context, node: ir.Node) -> None:
    """Equal parts, given sizes, or ``num_outputs`` of which the last may be smaller."""
    value, sizes = given(node, 0), optional(node, 1)
    axis = axis_of(node, ctx.rank(value))
    tensor, perm = ctx.any_layout(value)
    bits = as_bits(ctx, tensor, _SPLIT)
    place = perm.index(axis)
    numbers = parts.numbers_of(ctx, sizes)
    # Outputs at the end that nobody reads may have been dropped from the node.
    count = (
        parts.length(ctx, sizes) if sizes is not None else attr_int(node, "num_outputs", len(node.outputs))
    )
    if sizes is None:
        numbers = _shares(bits.shape[place], count)
    if numbers is None and sizes is None:
        made = _even(ctx, bits, place, count)
    else:
        given_sizes = parts.whole(ctx, sizes) if numbers is None and sizes is not None else None
        made = _split(ctx, bits, place, numbers, given_sizes, count)
    for out, item in zip(node.outputs, made, strict=False):
        ctx.set(out, from_bits(ctx, item, tensor.dtype), perm)


def _shares(size: int | None, count: int) -> list[int] | None:
    if size is None:
        return None
    share = -(-size // count)
    return [share] * (count - 1) + [size - share * (count - 1)]


def _split(
    ctx: Context, tensor: Tensor, axis: int, numbers: Sequence[int] | None, sizes: Tensor | None, count: int
) -> list[Tensor]:
    specs = [
        tensor.spec(_with(tensor.shape, axis, numbers[index] if numbers else None)) for index in range(count)
    ]
    if numbers is not None and len(set(numbers)) == 1:
        return ctx.emit_all("SPLIT", [ctx.ints(axis), tensor], specs, numSplits=count)
    wanted = sizes if sizes is not None else ctx.ints(numbers or [])
    return ctx.emit_all("SPLIT_V", [tensor, wanted, ctx.ints(axis)], specs, numSplits=count)


def _even(ctx: Context, tensor: Tensor, axis: int, count: int) -> list[Tensor]:
    """An axis of unknown size in `count` shares, rounded up."""
    size = parts.size(ctx, tensor, axis)
    share = ctx.binary("FLOOR_DIV", parts.plus(ctx, size, count - 1), ctx.ints(count))
    last = parts.minus(ctx, size, parts.times(ctx, share, count - 1))
    return _split(ctx, tensor, axis, None, parts.joined(ctx, [share] * (count - 1) + [last]), count)


def _with(shape: Shape, axis: int, size: int | None) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


@lowers("Tile", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def tile(ctx: Context, node: ir.Node) -> None:
    """Repeated along each axis."""
    tensor, counts = ctx.tensor(given(node, 0)), given(node, 1)
    if tensor.rank == 0:
        return ctx.set(node.outputs[0], tensor)
    numbers = parts.numbers_of(ctx, counts)
    if numbers is not None:
        shape = tuple(
            None if size is None else size * n for size, n in zip(tensor.shape, numbers, strict=True)
        )
        return ctx.set(node.outputs[0], ctx.emit("TILE", [tensor, ctx.ints(numbers)], tensor.spec(shape)))
    spec = tensor.spec((None,) * tensor.rank)
    return ctx.set(node.outputs[0], ctx.emit("TILE", [tensor, parts.whole(ctx, counts)], spec))


@lowers("DepthToSpace", quantized=Quantized.SAME)
def depth_to_space(ctx: Context, node: ir.Node) -> None:
    """Channels into blocks of pixels; the kernel works channels last with the block outermost (DCR)."""
    block = attr_int(node, "blocksize")
    shape = _image(ctx, node)
    n, c, h, w = shape
    depth = c // block**2
    if attr_str(node, "mode", "DCR") == "DCR" and ctx.dtype(given(node, 0)) in _BLOCKED:
        tensor = ctx.channels_last(given(node, 0))
        spec = tensor.spec((n, h * block, w * block, depth))
        made = ctx.emit("DEPTH_TO_SPACE", [tensor], spec, blockSize=block)
        return ctx.set(node.outputs[0], made, layout.channels_last(4))
    if ctx.options.grammar is not None and ctx.dtype(given(node, 0)) in _BLOCKED:
        return _by_channels(ctx, node, block, shape)
    tensor = ctx.tensor(given(node, 0))
    dcr = attr_str(node, "mode", "DCR") == "DCR"
    wide = (n, block, block, depth, h, w) if dcr else (n, depth, block, block, h, w)
    moved = ctx.transpose(ctx.reshape(tensor, wide), (0, 3, 4, 1, 5, 2) if dcr else (0, 1, 4, 2, 5, 3))
    return ctx.set(node.outputs[0], ctx.reshape(moved, (n, depth, h * block, w * block)))


def _by_channels(ctx: Context, node: ir.Node, block: int, shape: tuple[int, int, int, int]) -> None:
    """Blocks innermost (CRD) by putting the channels in the other order first: no more than four axes."""
    n, c, h, w = shape
    depth = c // block**2
    tensor = ctx.channels_last(given(node, 0))
    pixels = ctx.reshape(tensor, (n * h * w, depth, block**2))
    turned = ctx.reshape(ctx.transpose(pixels, (0, 2, 1)), (n, h, w, c))
    spec = turned.spec((n, h * block, w * block, depth))
    made = ctx.emit("DEPTH_TO_SPACE", [turned], spec, blockSize=block)
    ctx.set(node.outputs[0], made, layout.channels_last(4))


@lowers("SpaceToDepth", quantized=Quantized.SAME)
def space_to_depth(ctx: Context, node: ir.Node) -> None:
    """Blocks of pixels into channels."""
    block = attr_int(node, "blocksize")
    n, c, h, w = _image(ctx, node)
    if ctx.dtype(given(node, 0)) in _BLOCKED:
        tensor = ctx.channels_last(given(node, 0))
        spec = tensor.spec((n, h // block, w // block, c * block**2))
        made = ctx.emit("SPACE_TO_DEPTH", [tensor], spec, blockSize=block)
        return ctx.set(node.outputs[0], made, layout.channels_last(4))
    tensor = ctx.reshape(ctx.tensor(given(node, 0)), (n, c, h // block, block, w // block, block))
    moved = ctx.transpose(tensor, (0, 3, 5, 1, 2, 4))
    return ctx.set(node.outputs[0], ctx.reshape(moved, (n, c * block**2, h // block, w // block)))


def _image(ctx: Context, node: ir.Node) -> tuple[int, int, int, int]:
    shape = known(ctx.shape(given(node, 0)))
    if shape is None or len(shape) != 4:
        raise parts.refuse(node, "sizes are known only when the model runs", "dynamic_shape")
    n, c, h, w = shape
    return n, c, h, w
