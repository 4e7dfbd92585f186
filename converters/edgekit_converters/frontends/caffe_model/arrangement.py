"""Layers that arrange values: Concat, Slice, Split, Flatten, Reshape, Permute, Crop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from edgekit_converters.frontends.caffe_model.graph import Graph, Write
from edgekit_converters.frontends.caffe_model.net import Layer


def concat(g: Graph, layer: Layer) -> None:
    """Along an axis."""
    shapes = [g.shape(layer, i) for i in range(len(layer.bottoms))]
    axis = int(layer.one("axis", layer.one("concat_dim", 1))) % len(shapes[0])
    made = g.e.op("Concat", *(g.x(layer, i) for i in range(len(shapes))), axis=axis)
    shape = list(shapes[0])
    shape[axis] = sum(item[axis] for item in shapes)
    g.put(layer, made, tuple(shape))


def slice_(g: Graph, layer: Layer) -> None:
    """At the points given, else into equal parts."""
    shape = list(g.shape(layer))
    axis = int(layer.one("axis", layer.one("slice_dim", 1))) % len(shape)
    count, size = len(layer.tops), shape[axis]
    points = [int(value) for value in layer.settings.get("slice_point", [])]
    points = points or [size // count * i for i in range(1, count)]
    edges = [0, *points, size]
    sizes = [b - a for a, b in pairwise(edges)]
    if len(sizes) != count or min(sizes) < 1:
        raise ValueError("slice points that do not fit")
    names = [g.e.fresh("part") for _ in sizes]
    parts = g.e.ops("Split", g.x(layer), g.e.constant(sizes, np.int64), outputs=names, axis=axis)
    for place, (part, own) in enumerate(zip(parts, sizes, strict=True)):
        g.put(layer, part, (*shape[:axis], own, *shape[axis + 1 :]), place)


def split(g: Graph, layer: Layer) -> None:
    """The same value under several names."""
    for place in range(len(layer.tops)):
        g.put(layer, g.x(layer), g.shape(layer), place)


def flatten(g: Graph, layer: Layer) -> None:
    """From `axis` to `end_axis` into one."""
    shape = g.shape(layer)
    first, last = (int(layer.one(key, value)) % len(shape) for key, value in (("axis", 1), ("end_axis", -1)))
    new = (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])
    _reshaped(g, layer, new)


def reshape(g: Graph, layer: Layer) -> None:
    """Sizes with 0 for "as it was" and -1 for "the rest", over a range of axes."""
    shape = g.shape(layer)
    given = [int(value) for value in layer.one("shape", {}).get("dim", [])]
    first = int(layer.one("axis", 0)) % (len(shape) + 1)
    count = int(layer.one("num_axes", -1))
    last = len(shape) if count == -1 else first + count
    new = [*shape[:first], *(shape[first + i] if d == 0 else d for i, d in enumerate(given)), *shape[last:]]
    if -1 in new:
        rest = int(np.prod([size for size in new if size != -1]))
        new[new.index(-1)] = int(np.prod(shape)) // rest
    _reshaped(g, layer, tuple(new))


def _reshaped(g: Graph, layer: Layer, new: tuple[int, ...]) -> None:
    shape = g.shape(layer)
    if int(np.prod(new)) != int(np.prod(shape)):
        raise ValueError(f"{list(shape)} does not become {list(new)}")
    if new[0] != shape[0]:
        raise layer.refusal("moves the batch to another axis", "dynamic_shape")
    g.put(layer, g.e.reshape(g.x(layer), [-1, *new[1:]]), new)


def permute(g: Graph, layer: Layer) -> None:
    """Axes in another order; those not named follow."""
    shape = g.shape(layer)
    order = [int(value) for value in layer.settings.get("order", [])]
    order += [axis for axis in range(len(shape)) if axis not in order]
    if order[0] != 0:
        raise layer.refusal("moves the batch to another axis", "dynamic_shape")
    made = g.e.op("Transpose", g.x(layer), perm=order)
    g.put(layer, made, tuple(shape[axis] for axis in order))


def crop(g: Graph, layer: Layer) -> None:
    """From `axis` on to the second bottom's sizes, at the offsets."""
    shape, wanted = g.shape(layer), g.shape(layer, 1)
    axis = int(layer.one("axis", 2)) % len(shape)
    offsets = [int(value) for value in layer.settings.get("offset", [])] or [0]
    axes = list(range(axis, len(shape)))
    if axis == 0 or len(offsets) not in (1, len(axes)):
        raise layer.refusal("crops the batch, or has offsets that do not fit", "unsupported_attribute")
    starts = offsets * len(axes) if len(offsets) == 1 else offsets
    ends = [start + wanted[a] for start, a in zip(starts, axes, strict=True)]
    if any(end > shape[a] for end, a in zip(ends, axes, strict=True)):
        raise ValueError("a crop beyond the image")
    given = [g.e.constant(item, np.int64) for item in (starts, ends, axes)]
    g.put(layer, g.e.op("Slice", g.x(layer), *given), (*shape[:axis], *wanted[axis:]))


def silence(g: Graph, layer: Layer) -> None:
    """Nothing: its bottoms are not printed."""


KINDS: dict[str, Write] = {
    "Concat": concat,
    "Crop": crop,
    "Flatten": flatten,
    "Permute": permute,
    "Reshape": reshape,
    "Silence": silence,
    "Slice": slice_,
    "Split": split,
}
