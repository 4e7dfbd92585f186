"""Slice and Pad, with constant or computed places.

Facts by trial (ai_edge_litert 2.3.0): STRIDED_SLICE takes every type and ranks up to 8, int32 places,
negative strides, and cuts places as numpy does; SLICE likewise; PAD, PADV2 leave out double and the
unsigned integers of 16 bits and more, PADV2 takes ranks up to 5; MIRROR_PAD takes every type but does not
reach beyond one period. Other reflections, edge and wrap are gathers along each padded axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_str
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import as_bits, from_bits
from edgekit_converters.targets.tflite.lower.parts import given, optional
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Perm, Shape, Tensor, known

_FAR = parts.FAR
_PAD_RANK, _PADV2_RANK = 6, 5
_FOLDED = ("reflect", "edge", "wrap")


@lowers("Slice", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def slice_(ctx: Context, node: ir.Node) -> None:
    """Every `step`-th element from `start` to `end` along some axes."""
    value = given(node, 0)
    given_places = [optional(node, index) for index in range(1, 5)]
    numbers = [parts.numbers_of(ctx, item) for item in given_places]
    if any(item is not None and number is None for item, number in zip(given_places, numbers, strict=True)):
        return ctx.set(node.outputs[0], _computed_slice(ctx, node, ctx.tensor(value)))
    tensor, perm = ctx.any_layout(value)
    starts, ends = numbers[0] or [], numbers[1] or []
    axes = numbers[2] if numbers[2] is not None else list(range(len(starts)))
    steps = numbers[3] if numbers[3] is not None else [1] * len(starts)
    cuts = {
        perm.index(parts.front(axis, tensor.rank)): slice(start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }
    return ctx.set(node.outputs[0], _strided(ctx, tensor, cuts), perm)


def _strided(ctx: Context, tensor: Tensor, cuts: dict[int, slice]) -> Tensor:
    """STRIDED_SLICE; an axis of known size with exact places, an unknown one with what was asked."""
    begin, end, stride, shape = [], [], [], list(tensor.shape)
    for axis, size in enumerate(tensor.shape):
        cut = cuts.get(axis)
        if cut is None:
            first, last, step = 0, size if size is not None else _FAR, 1
        elif size is not None:
            first, last, step = cut.indices(size)
            shape[axis] = len(range(first, last, step))
            last = -_FAR if last < 0 else last
        else:
            first, last = (min(max(place, -_FAR), _FAR) for place in (cut.start, cut.stop))
            step, shape[axis] = min(max(cut.step, -_FAR), _FAR), None
        begin.append(first)
        end.append(last)
        stride.append(step)
    places = [ctx.ints(item) for item in (begin, end, stride)]
    return ctx.emit("STRIDED_SLICE", [tensor, *places], tensor.spec(shape))


def _computed_slice(ctx: Context, node: ir.Node, tensor: Tensor) -> Tensor:
    """Places by axis are put where they belong, the other axes are taken whole."""
    starts, ends = (parts.vector(ctx, parts.place(ctx, given(node, index))) for index in (1, 2))
    count = parts.length(ctx, given(node, 1))
    steps = optional(node, 4)
    strides = ctx.ints([1] * count) if steps is None else parts.vector(ctx, parts.place(ctx, steps))
    spread = _spreader(ctx, optional(node, 3), tensor.rank, count)
    places = [
        spread(item, default)
        for item, default in (
            (starts, [0] * tensor.rank),
            (ends, [_FAR] * tensor.rank),
            (strides, [1] * tensor.rank),
        )
    ]
    shape = _kept_sizes(ctx, node, tensor)
    return ctx.emit("STRIDED_SLICE", [tensor, *places], tensor.spec(shape))


def _kept_sizes(ctx: Context, node: ir.Node, tensor: Tensor) -> Shape:
    axes = optional(node, 3)
    numbers = parts.numbers_of(ctx, axes)
    if axes is not None and numbers is None:
        return (None,) * tensor.rank
    cut = range(parts.length(ctx, given(node, 1))) if numbers is None else numbers
    gone = {parts.front(axis, tensor.rank) for axis in cut}
    return tuple(None if axis in gone else size for axis, size in enumerate(tensor.shape))


def _spreader(
    ctx: Context, axes: ir.Value | None, rank: int, count: int
) -> Callable[[Tensor, Sequence[int]], Tensor]:
    """A function that puts one number for each of `axes` into a vector of `rank` numbers."""
    numbers = parts.numbers_of(ctx, axes)
    if axes is None or numbers is not None:
        known_axes = [parts.front(axis, rank) for axis in (numbers if numbers is not None else range(count))]

        def place(items: Tensor, default: Sequence[int]) -> Tensor:
            pieces = [
                parts.part(ctx, items, known_axes.index(axis), 1)
                if axis in known_axes
                else ctx.ints([default[axis]])
                for axis in range(rank)
            ]
            return parts.joined(ctx, pieces)

        return place
    return _computed_spreader(ctx, axes, rank)


def _computed_spreader(ctx: Context, axes: ir.Value, rank: int) -> Callable[[Tensor, Sequence[int]], Tensor]:
    """The same for axes that are computed: a number belongs where its axis stands, axes are distinct."""
    places = parts.counted_from_front(ctx, parts.vector(ctx, parts.whole(ctx, axes)), ctx.ints(rank))
    column = ctx.reshape(places, (places.shape[0], 1))
    here = parts.compare(ctx, "EQUAL", column, ctx.const(np.arange(rank, dtype=np.int32)[None]))
    any_here = parts.reduced(ctx, "REDUCE_ANY", here, [0], keep=False)

    def place(items: Tensor, default: Sequence[int]) -> Tensor:
        wide = parts.select(ctx, here, ctx.reshape(items, (items.shape[0], 1)), ctx.ints(0))
        return parts.select(
            ctx, any_here, parts.reduced(ctx, "SUM", wide, [0], keep=False), ctx.ints(default)
        )

    return place


@lowers("Pad", quantized=Quantized.SAME, dtypes=("INT8", "INT16"))
def pad(ctx: Context, node: ir.Node) -> None:
    """A constant, the mirrored, the last or the repeated elements around; negative pads cut."""
    mode = attr_str(node, "mode", "constant")
    value, pads, axes = given(node, 0), given(node, 1), optional(node, 3)
    numbers, places = parts.numbers_of(ctx, pads), parts.numbers_of(ctx, axes)
    if mode == "constant" and numbers is not None and (axes is None or places is not None):
        tensor, perm = ctx.any_layout(value)
        amounts = _amounts(numbers, places, perm)
        return ctx.set(node.outputs[0], _constant_pad(ctx, node, tensor, amounts), perm)
    if mode not in ("constant", *_FOLDED):
        raise parts.refuse(node, f"mode {mode}", "unsupported_attribute")
    if numbers is not None and (axes is None or places is not None):
        tensor, perm = ctx.any_layout(value)
        return ctx.set(node.outputs[0], _folded_pad(ctx, tensor, mode, _amounts(numbers, places, perm)), perm)
    tensor = ctx.tensor(value)
    before, after = _computed_amounts(ctx, pads, axes, tensor.rank)
    if mode == "constant":
        return ctx.set(node.outputs[0], _computed_pad(ctx, node, tensor, before, after))
    chosen = range(tensor.rank) if places is None else [parts.front(axis, tensor.rank) for axis in places]
    bits = as_bits(ctx, tensor)
    for axis in chosen:
        ends = parts.part(ctx, before, axis, 1), parts.part(ctx, after, axis, 1)
        bits = _gathered(ctx, bits, axis, mode, *ends)
    return ctx.set(node.outputs[0], from_bits(ctx, bits, tensor.dtype))


def _folded_pad(ctx: Context, tensor: Tensor, mode: str, amounts: Sequence[tuple[int, int]]) -> Tensor:
    """Reflect, edge or wrap by known amounts."""
    sizes = known(tensor.shape)
    pairs = list(zip(amounts, sizes or (), strict=False))
    if mode == "reflect" and sizes is not None and all(min(pair) >= 0 and max(pair) < n for pair, n in pairs):
        widths = ctx.const(np.array(amounts, np.int32).reshape(-1, 2))
        spec = tensor.spec([size + sum(pair) for pair, size in pairs])
        return ctx.emit("MIRROR_PAD", [tensor, widths], spec, mode=0)
    bits = as_bits(ctx, tensor)
    for axis, pair in enumerate(amounts):
        size = tensor.shape[axis]
        if pair == (0, 0):
            continue
        if size is None:
            bits = _gathered(ctx, bits, axis, mode, *(ctx.ints([end]) for end in pair))
        else:
            rows = _places(mode, size, np.arange(-pair[0], size + pair[1]))
            bits = parts.gather(ctx, bits, ctx.const(rows.astype(np.int32)), axis)
    return from_bits(ctx, bits, tensor.dtype)


def _places(mode: str, size: int, places: np.ndarray) -> np.ndarray:
    """Places around an axis folded back into it; `_gathered` does the same with tensors."""
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return np.asarray(places % size)
    folded = np.asarray(places % max(2 * (size - 1), 1))
    return np.asarray(np.minimum(folded, 2 * (size - 1) - folded))


def _amounts(numbers: Sequence[int], axes: Sequence[int] | None, perm: Perm) -> list[tuple[int, int]]:
    """(before, after) for each axis of the tensor held with `perm`."""
    rank, half = len(perm), len(numbers) // 2
    wanted = {
        parts.front(axis, rank): (numbers[index], numbers[half + index])
        for index, axis in enumerate(axes if axes is not None else range(rank))
    }
    return [wanted.get(axis, (0, 0)) for axis in perm]


def _constant_pad(ctx: Context, node: ir.Node, tensor: Tensor, amounts: Sequence[tuple[int, int]]) -> Tensor:
    cuts = {
        axis: slice(max(-before, 0), None if after >= 0 else after)
        for axis, (before, after) in enumerate(amounts)
        if before < 0 or after < 0
    }
    if cuts:
        ends = {
            axis: slice(cut.start, _FAR if cut.stop is None else cut.stop, 1) for axis, cut in cuts.items()
        }
        tensor = _strided(ctx, tensor, ends)
    widths = np.maximum(np.array(amounts, np.int32).reshape(-1, 2), 0)
    if not widths.any():
        return tensor
    shape = [
        None if size is None else size + int(sum(width))
        for size, width in zip(tensor.shape, widths, strict=True)
    ]
    return _pad(ctx, node, tensor, ctx.const(widths), shape)


def _pad(ctx: Context, node: ir.Node, tensor: Tensor, widths: Tensor, shape: Sequence[int | None]) -> Tensor:
    value = optional(node, 2)
    number = None if value is None else ctx.constant(value)
    if tensor.quant is not None:
        if number is None or not number.any():  # PAD pads with the zero point
            return ctx.emit("PAD", [tensor, widths], tensor.spec(shape))
        filler = parts.on_grid(ctx, tensor, float(number.reshape(-1)[0]))
        return ctx.emit("PADV2", [tensor, widths, filler], tensor.spec(shape))
    if tensor.rank > _PAD_RANK:
        raise parts.refuse(node, f"a value around more than {_PAD_RANK} axes", "unsupported_attribute")
    bits = as_bits(ctx, tensor)
    if value is None or (number is not None and not number.any()):
        made = ctx.emit("PAD", [bits, widths], bits.spec(shape))
    elif tensor.rank > _PADV2_RANK:
        raise parts.refuse(node, "a value other than zero around more than 5 axes", "unsupported_attribute")
    else:
        filler = as_bits(ctx, parts.vector(ctx, ctx.tensor(value)))
        made = ctx.emit("PADV2", [bits, widths, filler], bits.spec(shape))
    return from_bits(ctx, made, tensor.dtype)


def _computed_amounts(
    ctx: Context, pads: ir.Value, axes: ir.Value | None, rank: int
) -> tuple[Tensor, Tensor]:
    amounts = parts.vector(ctx, parts.whole(ctx, pads))
    half = parts.length(ctx, pads) // 2
    ends = parts.part(ctx, amounts, 0, half), parts.part(ctx, amounts, half, half)
    if axes is None:
        return ends
    spread = _spreader(ctx, axes, rank, half)
    return spread(ends[0], [0] * rank), spread(ends[1], [0] * rank)


def _computed_pad(ctx: Context, node: ir.Node, tensor: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """First cut by the negative amounts, then pad by the positive ones."""
    zero, unknown = ctx.ints(0), (None,) * tensor.rank
    low, high = (ctx.binary("MINIMUM", item, zero) for item in (before, after))
    kept = parts.plus(ctx, parts.plus(ctx, parts.sizes(ctx, tensor), low), high)
    cut = ctx.emit("SLICE", [tensor, ctx.unary("NEG", low), kept], tensor.spec(unknown))
    widths = [ctx.reshape(ctx.binary("MAXIMUM", item, zero), (tensor.rank, 1)) for item in (before, after)]
    return _pad(ctx, node, cut, parts.joined(ctx, widths, 1), unknown)


def _gathered(ctx: Context, tensor: Tensor, axis: int, mode: str, before: Tensor, after: Tensor) -> Tensor:
    """Rows by their place: from -before to size + after, folded back into the axis."""
    size = parts.scalar(ctx, parts.size(ctx, tensor, axis))
    first = parts.scalar(ctx, ctx.unary("NEG", before))
    last = parts.plus(ctx, size, parts.scalar(ctx, after))
    places = ctx.emit("RANGE", [first, last, ctx.ints(1)], size.spec((None,)))
    end = parts.minus(ctx, size, 1)
    if mode == "edge":
        inside = ctx.binary("MINIMUM", ctx.binary("MAXIMUM", places, ctx.ints(0)), end)
    elif mode == "wrap":
        inside = ctx.binary("FLOOR_MOD", places, size)
    else:
        twice = parts.times(ctx, end, 2)
        period = ctx.binary("MAXIMUM", twice, ctx.ints(1))
        folded = ctx.binary("FLOOR_MOD", places, period)
        inside = ctx.binary("MINIMUM", folded, parts.minus(ctx, twice, folded))
    return parts.gather(ctx, tensor, inside, axis)
