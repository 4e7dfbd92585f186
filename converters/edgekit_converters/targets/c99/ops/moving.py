"""Operations that move elements and compute nothing: PAD, CONCATENATION, TRANSPOSE, SLICE, SPLIT, and the
changes of shape, which cost nothing at all. Input and output share a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit_converters.frontends.tflite_model.reader import Stored
from edgekit_converters.targets.c99.steps import DIMS, Bound, Call, Step, count, padded, strides


def reshape(op: Bound) -> Step:
    """The same numbers in another shape."""
    same_scale(op, op.input(0), op.output())
    op.require(count(op.input(0).shape) == count(op.output().shape), "changes the number of elements")
    return Step(kind=op.kind, inputs=(op.index(0),), outputs=op.op.outputs[:1], alias=True)


def pad(op: Bound) -> Step:
    """Filled with zero, which is the zero point, or (PADV2) with a constant."""
    same_scale(op, op.input(0), op.output())
    value = op.quantization(op.output())[1]
    if op.kind == "PADV2":
        same_scale(op, op.input(2), op.output())
        value = int(op.constant(2).reshape(-1)[0])
    around = [(int(pair[0]), int(pair[1])) for pair in op.constant(1).tolist()]
    ahead = [first for first, _ in around]
    wanted = [a + size + b for (a, b), size in zip(around, op.input(0).shape, strict=True)]
    op.require([*op.output().shape] == wanted and min(min(pair) for pair in around) >= 0, "has other shapes")
    steps = strides(op.output().shape)
    start = sum(a * b for a, b in zip(ahead, steps, strict=True))
    call = move(op, op.index(0), op.op.outputs[0], op.input(0).shape, to_stride=steps, to=start)
    fill = {"fill": count(op.output().shape), "value": value}
    return _step(op, [replace(call, fields={**call.fields, **fill})])


def concatenation(op: Bound) -> Step:
    """One move an input."""
    if op.option("fusedActivationFunction") != 0:
        op.refuse("has a fused activation")
    shape, steps, start, calls = op.output().shape, strides(op.output().shape), 0, []
    axis = int(op.option("axis")) % len(shape)
    for place, index in enumerate(op.op.inputs):
        same_scale(op, op.input(place), op.output())
        part = op.input(place).shape
        op.require(_beside(part, axis) == _beside(shape, axis), "has parts that do not fit")
        calls.append(move(op, index, op.op.outputs[0], part, to_stride=steps, to=start))
        start += part[axis] * steps[axis]
    op.require(start == shape[axis] * steps[axis], "has parts that do not fit")
    return _step(op, calls)


def transpose(op: Bound) -> Step:
    """Dimensions in another order."""
    same_scale(op, op.input(0), op.output())
    steps = strides(op.input(0).shape)
    order = [int(axis) for axis in op.constant(1).tolist()]
    op.require(sorted(order) == list(range(len(steps))), "has no order of its dimensions")
    op.require([*op.output().shape] == [op.input(0).shape[axis] for axis in order], "has other shapes")
    moved = [steps[axis] for axis in order]
    return _step(op, [move(op, op.index(0), op.op.outputs[0], op.output().shape, from_stride=moved)])


def part(op: Bound) -> Step:
    """SLICE: a block of the input."""
    same_scale(op, op.input(0), op.output())
    steps = strides(op.input(0).shape)
    begin, size = [int(a) for a in op.constant(1).tolist()], op.output().shape
    ends = zip(begin, size, op.input(0).shape, strict=True)
    op.require(all(0 <= a <= whole - n for a, n, whole in ends), "reaches outside of its input")
    told = zip(op.constant(2).tolist(), size, begin, op.input(0).shape, strict=True)
    op.require(all(n == (whole - a if t == -1 else t) for t, n, a, whole in told), "has other shapes")
    start = sum(a * b for a, b in zip(begin, steps, strict=True))
    call = move(op, op.index(0), op.op.outputs[0], op.output().shape, from_stride=steps, start=start)
    return _step(op, [call])


def split(op: Bound) -> Step:
    """SPLIT: equal parts along one axis, which is the first input."""
    shape = op.input(1).shape
    axis = int(op.constant(0).reshape(-1)[0]) % len(shape)
    steps, start, calls = strides(shape), 0, []
    for place, index in enumerate(op.op.outputs):
        piece = op.output(place)
        same_scale(op, op.input(1), piece)
        op.require(_beside(piece.shape, axis) == _beside(shape, axis), "has parts that do not fit")
        calls.append(move(op, op.index(1), index, piece.shape, from_stride=steps, start=start))
        start += piece.shape[axis] * steps[axis]
    op.require(start <= shape[axis] * steps[axis], "has parts that do not fit")
    return Step(kind=op.kind, calls=tuple(calls), inputs=(op.index(1),), outputs=op.op.outputs)


def _beside(shape: Sequence[int], axis: int) -> list[int]:
    """The sizes of all dimensions but one."""
    return [*shape[:axis], *shape[axis + 1 :]] if len(shape) > axis else []


def _step(op: Bound, calls: Sequence[Call]) -> Step:
    inputs = tuple(call.tensors[0] for call in calls)
    return Step(kind=op.kind, calls=tuple(calls), inputs=inputs, outputs=op.op.outputs[:1])


def move(
    op: Bound,
    source: int,
    target: int,
    size: Sequence[int],
    *,
    from_stride: Sequence[int] | None = None,
    to_stride: Sequence[int] | None = None,
    start: int = 0,
    to: int = 0,
) -> Call:
    """A call that moves `size` elements; strides are those of a whole tensor of that size unless given."""
    if len(size) > DIMS:
        op.refuse(f"has more than {DIMS} dimensions")
    fields: dict[str, Any] = {
        "size": padded(size, 1),
        "from_stride": padded(from_stride or strides(size), 0),
        "to_stride": padded(to_stride or strides(size), 0),
        "from": start,
        "to": to,
        "fill": 0,
        "value": 0,
    }
    return Call(
        function="ek_move", struct="ek_move_t", fields=fields, tensors=(source, target), source="ek_move.c"
    )


def same_scale(op: Bound, one: Stored, other: Stored) -> None:
    """Refuse to move integers that would mean something else afterwards."""
    if one.dtype != other.dtype or one.dtype not in (np.int8, np.uint8):
        op.refuse(f"moves {one.dtype} to {other.dtype}: only 8-bit tensors are moved")
    if one.scale is None or other.scale is None:
        return
    if float(one.scale[0]) != float(other.scale[0]) or one.zero[0] != other.zero[0]:  # type: ignore[index]
        op.refuse("changes the scale")


OPS = {
    "RESHAPE": reshape,
    "SQUEEZE": reshape,
    "EXPAND_DIMS": reshape,
    "PAD": pad,
    "PADV2": pad,
    "CONCATENATION": concatenation,
    "TRANSPOSE": transpose,
    "SLICE": part,
    "SPLIT": split,
}
