"""Shapes, slices, joints, padding, repetition. Specification: onnx/docs/Operators.md.

A parameter that is fed rather than stored (a shape, repetitions) is taken from the graph's own static
types where these leave no choice; otherwise the program computes with it, or the node is refused.
"""

from __future__ import annotations

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from edgekit_converters.targets.coreml.lower.node import (
    Array,
    Node,
    Var,
    as_int,
    broadcast,
    choose,
    is_bool,
    is_float,
    on_int,
    reshaped,
)
from edgekit_converters.targets.coreml.lower.registry import lowers


@lowers("Identity")
def _identity(node: Node) -> Var:
    return mb.identity(x=node.var(0))


@lowers("Reshape")
def _reshape(node: Node) -> Var:
    x, wanted, result = node.var(0), node.constant(1), node.result_shape()
    if result is not None and not any(is_symbolic(size) for size in x.shape):
        return reshaped(x, result)
    if wanted is None:
        if node.integer("allowzero"):
            node.refuse("allowzero with a shape that is fed", "requires_constant_input")
        return mb.reshape(x=x, shape=node.var(1))
    sizes = [int(item) for item in wanted]
    if 0 in sizes and node.integer("allowzero"):
        node.refuse("a tensor without elements", "empty_tensor")
    return _dynamic_reshape(node, x, sizes)


def _dynamic_reshape(node: Node, x: Var, sizes: list[int]) -> Var:
    """To `sizes` (0: as in `x`, one -1) where sizes of `x` are free."""
    kept = [index for index, size in enumerate(sizes) if size == 0]
    if not kept or all(not is_symbolic(x.shape[index]) for index in kept):
        sizes = [int(x.shape[i]) if size == 0 else size for i, size in enumerate(sizes)]
        return mb.reshape(x=x, shape=np.array(sizes, np.int32))
    if len(sizes) == x.rank:
        return mb.reshape(x=x, shape=np.array(sizes, np.int32))
    parts = [size_of(x, i) if size == 0 else np.array([size], np.int32) for i, size in enumerate(sizes)]
    return mb.reshape(x=x, shape=mb.concat(values=parts, axis=0))


def size_of(x: Var, axis: int) -> Var:
    """One size of `x` as a tensor of one number."""
    if not is_symbolic(x.shape[axis]):
        return mb.const(val=np.array([x.shape[axis]], np.int32))
    shape = mb.shape(x=x)
    return mb.slice_by_index(x=shape, begin=np.array([axis], np.int32), end=np.array([axis + 1], np.int32))


@lowers("Flatten")
def _flatten(node: Node) -> Var:
    x, axis = node.var(0), node.axis(default=1)
    if x.rank == 0:
        return reshaped(x, [1, 1])
    head = x.shape[:axis]
    if any(is_symbolic(size) for size in head):
        if axis == 1:
            return mb.reshape(x=x, shape=mb.concat(values=[size_of(x, 0), np.array([-1], np.int32)], axis=0))
        node.refuse("the free sizes before the axis", "dynamic_shape")
    return mb.reshape(x=x, shape=np.array([int(np.prod(head)) if len(head) else 1, -1], np.int32))


@lowers("Transpose")
def _transpose(node: Node) -> Var:
    x = node.var(0)
    if x.rank < 2:
        return mb.identity(x=x)
    return mb.transpose(x=x, perm=node.integers("perm") or list(range(x.rank - 1, -1, -1)))


@lowers("Squeeze")
def _squeeze(node: Node) -> Var:
    x = node.var(0)
    axes = None if not node.has(1) else node.constant(1)
    if axes is None:
        result = node.result_shape()
        if result is None:
            node.refuse("the axes must be constant", "requires_constant_input")
        return reshaped(x, result)
    if axes.size == 0:
        return mb.identity(x=x)
    return mb.squeeze(x=x, axes=sorted(int(axis) % x.rank for axis in axes.reshape(-1)))


@lowers("Unsqueeze")
def _unsqueeze(node: Node) -> Var:
    x, axes = node.var(0), node.constant(1)
    if axes is None:
        result = node.result_shape()
        if result is None:
            node.refuse("the axes must be constant", "requires_constant_input")
        return reshaped(x, result)
    rank = x.rank + axes.size
    if not axes.size:
        return mb.identity(x=x)
    return mb.expand_dims(x=x, axes=sorted(int(axis) % rank for axis in axes.reshape(-1)))


@lowers("Shape")
def _shape(node: Node) -> Var:
    x, rank = node.var(0), node.var(0).rank
    start, end = _clamped(node.integer("start"), rank), _clamped(node.integer("end", rank), rank)
    if start >= end:
        node.refuse("a shape without sizes", "empty_tensor")
    if not any(is_symbolic(size) for size in x.shape[start:end]):
        return mb.const(val=np.array(x.shape[start:end], np.int32))
    bounds = np.array([start], np.int32), np.array([end], np.int32)
    return mb.slice_by_index(x=mb.shape(x=as_int(x)), begin=bounds[0], end=bounds[1])


def _clamped(place: int, size: int) -> int:
    return min(max(place + size if place < 0 else place, 0), size)


@lowers("Size")
def _size(node: Node) -> Var:
    x = node.var(0)
    if x.rank == 0:
        return mb.const(val=np.int32(1))
    if not any(is_symbolic(size) for size in x.shape):
        return mb.const(val=np.int32(np.prod(x.shape)))
    return mb.reduce_prod(x=mb.shape(x=as_int(x)), axes=[0], keep_dims=False)


@lowers("Concat")
def _concat(node: Node) -> Var:
    return _joined(node.filled(), node.integer("axis"))


def _joined(parts: list[Var], axis: int) -> Var:
    if len(parts) == 1:
        return mb.identity(x=parts[0])
    return mb.concat(values=parts, axis=axis % parts[0].rank)


@lowers("Split")
def _split(node: Node) -> list[Var]:
    x, axis = node.var(0), node.axis()
    count = len(node.raw.outputs)
    size = node.shape()[axis]
    sizes = node.constant(1)
    if sizes is not None:
        parts = [int(item) for item in sizes]
    elif node.has(1):
        parts = [(node.result_shape(index) or [0] * x.rank)[axis] for index in range(count)]
        if sum(parts) != size:
            node.refuse("the sizes must be constant", "requires_constant_input")
    else:
        step = -(-size // count)
        parts = [min(step, size - step * index) for index in range(count)]
    kept = [part for part in parts if part]
    found = iter([mb.identity(x=x)] if len(kept) == 1 else mb.split(x=x, split_sizes=kept, axis=axis))
    return [next(found) if part else None for part in parts]


@lowers("Expand")
def _expand(node: Node) -> Var:
    x, result, wanted = node.var(0), node.result_shape(), node.constant(1)
    if result is not None and not any(is_symbolic(size) for size in x.shape):
        return broadcast(x, result)
    if wanted is None and result is None:
        node.refuse("the shape must be constant", "requires_constant_input")
    sizes = [int(item) for item in wanted] if wanted is not None else result or []
    x = reshaped(x, [1] * (len(sizes) - x.rank)) if x.rank == 0 else x
    if len(sizes) > x.rank:
        x = mb.expand_dims(x=x, axes=list(range(len(sizes) - x.rank)))
    sizes = [1] * (x.rank - len(sizes)) + sizes
    reps = [
        size if not is_symbolic(own) and own == 1 else 1 for own, size in zip(x.shape, sizes, strict=True)
    ]
    if any(is_symbolic(own) and size != 1 for own, size in zip(x.shape, sizes, strict=True)):
        node.refuse("a free size may or may not be repeated", "dynamic_shape")
    return mb.tile(x=x, reps=reps)


@lowers("Tile")
def _tile(node: Node) -> Var:
    x, reps = node.var(0), node.constant(1)
    result = node.result_shape()
    if reps is not None:
        found = [int(item) for item in reps]
    elif result is not None:
        found = [wanted // own for wanted, own in zip(result, node.shape(), strict=True)]
    else:
        return mb.tile(x=x, reps=node.var(1))
    if min(found) < 1:
        node.refuse("no repetition at all", "empty_tensor")
    return mb.tile(x=x, reps=found)


@lowers("ConstantOfShape")
def _constant_of_shape(node: Node) -> Var:
    """The shape is computed here (the hub folds constant ones)."""
    from edgekit_converters.hub import nodes

    given = nodes.attr_tensor(node.raw, "value")
    value = np.float32(0) if given is None else given.reshape(-1)[0]
    result = node.result_shape()
    if value.dtype.kind in "iu":
        value = np.int32(value)
    elif value.dtype.kind == "f":
        value = np.float32(value)
    if result is not None:
        return mb.const(val=np.full(result, value))
    return mb.fill(shape=node.var(0), value=value)


@lowers("EyeLike")
def _eye(node: Node) -> Var:
    rows, columns = node.shape()
    found = np.eye(rows, columns, k=node.integer("k"))
    wanted = node.raw.outputs[0].dtype
    if wanted is None or wanted.is_floating_point():
        return mb.const(val=found.astype(np.float32))
    return mb.const(val=found.astype(np.bool_ if wanted.name == "BOOL" else np.int32))


@lowers("Trilu")
def _trilu(node: Node) -> Var:
    x = node.var(0)
    rows, columns = node.shape()[-2:]
    distance = np.subtract.outer(np.arange(rows), np.arange(columns)).astype(np.int32) * -1
    upper = bool(node.integer("upper", 1))
    stored = node.constant(1)
    if stored is not None or not node.has(1):
        k = int(stored.reshape(-1)[0]) if stored is not None else 0
        mask = mb.const(val=distance >= k if upper else distance <= k)
    else:
        fed = reshaped(node.var(1), [])
        mask = (mb.greater_equal if upper else mb.less_equal)(x=mb.const(val=distance), y=fed)
    if is_bool(x):
        return mb.logical_and(x=x, y=mask)
    return choose(mask, x, np.float32(0) if is_float(x) else np.int32(0))


@lowers("Range")
def _range(node: Node) -> Var:
    start, limit, delta = node.vars()
    result = node.result_shape()
    if result is None:
        return mb.range_1d(start=start, end=limit, step=delta)
    places = np.arange(result[0])
    steps = places.astype(np.float32) if is_float(start) else places.astype(np.int32)
    return mb.add(x=start, y=mb.mul(x=delta, y=steps))


@lowers("DepthToSpace")
def _depth_to_space(node: Node) -> Var:
    x, block = node.var(0), node.integer("blocksize")
    batch, channels, height, width = node.shape()
    if is_float(x) and block > 1:
        if node.text("mode", "DCR") == "CRD":
            return mb.pixel_shuffle(x=x, upscale_factor=block)
        return mb.depth_to_space(x=x, block_size=block)
    rest = channels // block**2
    if batch != 1:
        node.refuse("whole numbers in a batch", "unsupported_type")
    split, perm = ([block, block, rest, height, width], [2, 3, 0, 4, 1])
    if node.text("mode", "DCR") == "CRD":
        split, perm = ([rest, block, block, height, width], [0, 3, 1, 4, 2])
    moved = mb.transpose(x=reshaped(x, split), perm=perm)
    return reshaped(moved, [1, rest, height * block, width * block])


@lowers("SpaceToDepth")
def _space_to_depth(node: Node) -> Var:
    x, block = node.var(0), node.integer("blocksize")
    if not is_float(x) or block < 2:
        node.refuse("whole numbers", "unsupported_type")
    return mb.space_to_depth(x=x, block_size=block)


@lowers("ReverseSequence")
def _reverse_sequence(node: Node) -> Var:
    batch, time = node.integer("batch_axis", 1), node.integer("time_axis", 0)
    return mb.reverse_sequence(x=node.var(0), lengths=node.var(1), seq_axis=time, batch_axis=batch)


@lowers("NonZero")
def _non_zero(node: Node) -> Var:
    x = node.var(0)
    x = mb.expand_dims(x=x, axes=[0]) if x.rank == 0 else x
    return mb.transpose(x=mb.non_zero(x=x), perm=[1, 0])


@lowers("Compress")
def _compress(node: Node) -> Var:
    x = node.var(0)
    chosen = mb.squeeze(x=mb.non_zero(x=as_int(node.var(1))), axes=[1])
    if "axis" not in node.raw.attributes:
        size = int(np.prod(node.shape()))
        return on_int(reshaped(x, [size]), lambda v: mb.gather(x=v, indices=chosen, axis=0))
    axis = node.axis()
    return on_int(x, lambda v: mb.gather(x=v, indices=chosen, axis=axis))


def take(x: Var, places: Array, axis: int) -> Var:
    """`x` at constant places (all within it) along one axis."""
    whole = np.array_equal(places, np.arange(len(places)))
    if whole and not is_symbolic(x.shape[axis]) and len(places) == x.shape[axis]:
        return x
    return on_int(x, lambda v: mb.gather(x=v, indices=places.astype(np.int32), axis=axis))
