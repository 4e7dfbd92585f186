"""STRIDED_SLICE and RESIZE_NEAREST_NEIGHBOR by whole numbers: elements taken in steps, or again and again."""

from __future__ import annotations

from edgekit_converters.targets.c99.ops.moving import move, same_scale
from edgekit_converters.targets.c99.steps import Bound, Step, count, strides


def strided(op: Bound) -> Step:
    """A slice with steps, by the masks of TFLite; no new axes."""
    same_scale(op, op.input(0), op.output())
    op.require(
        not op.option("ellipsisMask") and not op.option("newAxisMask"), "has an ellipsis or a new axis"
    )
    shape, steps = op.input(0).shape, strides(op.input(0).shape)
    begin, end, step = (op.constant(place).tolist() for place in (1, 2, 3))
    op.require(len(begin) == len(end) == len(step) == len(shape), "does not name every dimension")
    sizes, taken, start = [], [], 0
    for axis, size in enumerate(shape):
        bit = 1 << axis
        if op.option("shrinkAxisMask") & bit:
            first, number, each = begin[axis] % size, 1, 1
        else:
            first, number, each = _range(
                None if op.option("beginMask") & bit else begin[axis],
                None if op.option("endMask") & bit else end[axis],
                step[axis],
                size,
            )
        sizes.append(number)
        taken.append(each * steps[axis])
        start += first * steps[axis]
    op.require(count(sizes) == count(op.output().shape) > 0, "has other shapes")
    call = move(op, op.index(0), op.op.outputs[0], sizes, from_stride=taken, start=start)
    return Step(kind=op.kind, calls=(call,), inputs=(op.index(0),), outputs=op.op.outputs[:1])


def _range(begin: int | None, end: int | None, step: int, size: int) -> tuple[int, int, int]:
    """First element, how many, and the step."""
    found = range(*slice(begin, end, step).indices(size))
    return (found.start, len(found), step)


def nearest(op: Bound) -> Step:
    """Every element so many times, along height and width."""
    same_scale(op, op.input(0), op.output())
    op.require(not op.option("alignCorners"), "aligns corners")
    (batch, height, width, depth), target = op.input(0).shape, op.output().shape
    op.require(batch == 1 and target[0] == 1 and target[3] == depth, "has other shapes, or a batch")
    op.require(op.constant(1).tolist() == [target[1], target[2]], "has other shapes")
    (down, rest), (across, more) = divmod(target[1], height), divmod(target[2], width)
    op.require(not rest and not more, "enlarges by no whole number")
    taken = [width * depth, 0, depth, 0, 1]
    call = move(op, op.index(0), op.op.outputs[0], [height, down, width, across, depth], from_stride=taken)
    return Step(kind=op.kind, calls=(call,), inputs=(op.index(0),), outputs=op.op.outputs[:1])


OPS = {"STRIDED_SLICE": strided, "RESIZE_NEAREST_NEIGHBOR": nearest}
