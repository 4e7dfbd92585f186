"""Ops that change shapes: the sizes in the file are known, the batch may be free."""

from __future__ import annotations

from collections.abc import Callable

from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.reader import Op


def reshape(g: Graph, op: Op) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the output's own sizes."""
    before, after = g.tensor(op.inputs[0]).shape, g.tensor(op.outputs[0]).shape
    if g.free and (not after or not before or before[0] != after[0]):
        raise g.refusal(op, "moves the batch to another axis", "dynamic_shape")
    g.put(op.outputs[0], g.e.reshape(g.value(op.inputs[0]), g.shape(op.outputs[0])))


def transpose(g: Graph, op: Op) -> None:
    """Axes in another order."""
    perm = [int(i) for i in g.constant(op, 1)]
    g.put(op.outputs[0], g.e.op("Transpose", g.value(op.inputs[0]), perm=perm))


def concatenation(g: Graph, op: Op) -> None:
    """Along an axis, channels first where every part is so."""
    rank = len(g.tensor(op.outputs[0]).shape)
    axis = int(g.option(op, "axis")) % rank
    turned = rank == 4 and any(g.has_first(i) for i in op.inputs)
    parts = [g.value(i, first=turned) for i in op.inputs]
    place = (0, 2, 3, 1)[axis] if turned else axis
    g.put(op.outputs[0], g.activated(op, g.e.op("Concat", *parts, axis=place)), first=turned)


def _split(g: Graph, op: Op, x: int, axis: int, sizes: list[int]) -> None:
    names = [g.e.fresh("part") for _ in op.outputs]
    split = g.e.constant(sizes, "int64")
    for index, name in zip(
        op.outputs, g.e.ops("Split", g.value(x), split, outputs=names, axis=axis), strict=True
    ):
        g.put(index, name)


def split(g: Graph, op: Op) -> None:
    """SPLIT: the axis comes first; equal parts."""
    shape = g.tensor(op.inputs[1]).shape
    axis = int(g.constant(op, 0).reshape(-1)[0]) % len(shape)
    _split(g, op, op.inputs[1], axis, [shape[axis] // len(op.outputs)] * len(op.outputs))


def split_v(g: Graph, op: Op) -> None:
    """SPLIT_V: x, sizes, axis."""
    shape = g.tensor(op.inputs[0]).shape
    axis = int(g.constant(op, 2).reshape(-1)[0]) % len(shape)
    _split(g, op, op.inputs[0], axis, [g.tensor(i).shape[axis] for i in op.outputs])


def pack(g: Graph, op: Op) -> None:
    """PACK: equal tensors along a new axis."""
    axis = int(g.option(op, "axis")) % len(g.tensor(op.outputs[0]).shape)
    parts = [g.e.unsqueeze(g.value(i), [axis]) for i in op.inputs]
    g.put(op.outputs[0], g.e.op("Concat", *parts, axis=axis))


def unpack(g: Graph, op: Op) -> None:
    """UNPACK: an axis taken apart."""
    axis = int(g.option(op, "axis")) % len(g.tensor(op.inputs[0]).shape)
    for place, index in enumerate(op.outputs):
        picked = g.e.op("Gather", g.value(op.inputs[0]), g.e.constant(place, "int64"), axis=axis)
        g.put(index, picked)


def tile(g: Graph, op: Op) -> None:
    """Repeats."""
    repeats = g.e.constant(g.constant(op, 1), "int64")
    g.put(op.outputs[0], g.e.op("Tile", g.value(op.inputs[0]), repeats))


def broadcast_to(g: Graph, op: Op) -> None:
    """To the output's sizes."""
    shape = g.e.constant(g.tensor(op.outputs[0]).shape, "int64")
    g.put(op.outputs[0], g.e.op("Expand", g.value(op.inputs[0]), shape))


def shape_of(g: Graph, op: Op) -> None:
    """SHAPE: a constant unless the batch is free."""
    found = g.e.op("Shape", g.value(op.inputs[0]))
    g.put(op.outputs[0], g.e.cast(found, g.tensor(op.outputs[0]).dtype))


OPS: dict[str, Callable[[Graph, Op], None]] = {
    "BROADCAST_TO": broadcast_to,
    "CONCATENATION": concatenation,
    "EXPAND_DIMS": reshape,
    "PACK": pack,
    "RESHAPE": reshape,
    "SHAPE": shape_of,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": reshape,
    "TILE": tile,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}
