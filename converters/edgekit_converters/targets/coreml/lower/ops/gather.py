"""Gather, scatter, one-hot. Specification: onnx/docs/Operators.md, coremltools' MIL ops (iOS 17).

Since iOS 17 MIL takes no negative index: constant ones are counted from the front here, computed ones by
the program. Booleans go by way of int32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from edgekit_converters.targets.coreml.lower.node import (
    Node,
    Var,
    as_bool,
    as_int,
    choose,
    is_bool,
    is_float,
    on_int,
    reshaped,
)
from edgekit_converters.targets.coreml.lower.ops.reduce import positions
from edgekit_converters.targets.coreml.lower.ops.shape import size_of
from edgekit_converters.targets.coreml.lower.registry import lowers


def _from_front(node: Node, index: int, x: Var, axis: int) -> Var:
    """The indices at input `index`, none of them negative."""
    stored, size = node.constant(index), x.shape[axis]
    if stored is not None and not is_symbolic(size):
        found = np.where(stored < 0, stored + int(size), stored)
        if found.size and (found.min() < 0 or found.max() >= size):
            node.refuse("an index is out of range", "unsupported_attribute")
        return mb.const(val=found.astype(np.int32))
    if stored is not None and stored.min() >= 0:
        return node.var(index)
    fed = as_int(node.var(index))
    length: Any = np.int32(size) if not is_symbolic(size) else mb.squeeze(x=size_of(x, axis), axes=[0])
    return choose(mb.less(x=fed, y=np.int32(0)), mb.add(x=fed, y=length), fed)


@lowers("Gather")
def _gather(node: Node) -> Var:
    x, axis = node.var(0), node.axis()
    indices = _from_front(node, 1, x, axis)
    if x.rank == 5 and indices.rank == 0:  # crashes the runtime (crbug.com/391672283)
        row = mb.expand_dims(x=indices, axes=[0])
        return mb.squeeze(x=on_int(x, lambda v: mb.gather(x=v, indices=row, axis=axis)), axes=[axis])
    return on_int(x, lambda v: mb.gather(x=v, indices=indices, axis=axis))


@lowers("GatherElements")
def _gather_elements(node: Node) -> Var:
    x, axis = node.var(0), node.axis()
    indices = _from_front(node, 1, x, axis)
    data, places = node.shape(0), node.shape(1)
    if any(own != wanted for i, (own, wanted) in enumerate(zip(data, places, strict=True)) if i != axis):
        coordinates = _coordinates(indices, places, axis)
        return on_int(x, lambda v: mb.gather_nd(x=v, indices=coordinates))
    return on_int(x, lambda v: mb.gather_along_axis(x=v, indices=indices, axis=axis))


def _coordinates(indices: Var, shape: list[int], axis: int) -> Var:
    """Full coordinates of every element, `indices` standing for one axis."""
    rank = len(shape)
    if rank > 4:
        raise ValueError("more than four axes")
    parts = []
    for other in range(rank):
        grid = np.broadcast_to(positions(shape[other], other, rank), shape)[..., None]
        own = mb.expand_dims(x=indices, axes=[rank])
        parts.append(own if other == axis else mb.const(val=np.ascontiguousarray(grid)))
    return mb.concat(values=parts, axis=rank)


def _nd_from_front(node: Node, index: int, x: Var, first: int) -> Var:
    """Indices of several axes, the last of their axes running over those of `x` from `first` on."""
    stored, depth = node.constant(index), node.shape(index)[-1]
    sizes = np.array(node.sizes(x)[first : first + depth], np.int32)
    if stored is not None:
        found = np.where(stored < 0, stored + sizes, stored)
        if found.size and (found.min() < 0 or np.any(found >= sizes)):
            node.refuse("an index is out of range", "unsupported_attribute")
        return mb.const(val=found.astype(np.int32))
    fed = node.var(index)
    return choose(mb.less(x=fed, y=np.int32(0)), mb.add(x=fed, y=sizes), fed)


@lowers("GatherND")
def _gather_nd(node: Node) -> Var:
    x, batch = node.var(0), node.integer("batch_dims")
    indices = _nd_from_front(node, 1, x, batch)
    if indices.rank == 1:
        found = on_int(
            x, lambda v: mb.gather_nd(x=v, indices=mb.expand_dims(x=indices, axes=[0]), batch_dims=batch)
        )
        return mb.squeeze(x=found, axes=[0])
    return on_int(x, lambda v: mb.gather_nd(x=v, indices=indices, batch_dims=batch))


_MODES = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _mode(node: Node) -> str:
    reduction = node.text("reduction", "none")
    if node.width() is not None and reduction in ("add", "mul"):
        node.refuse("sums of narrow whole numbers wrap around", "unsupported_type")
    if is_bool(node.var(0)) and reduction != "none":
        node.refuse("reductions of booleans", "unsupported_type")
    return _MODES[reduction]


@lowers("ScatterElements")
def _scatter_elements(node: Node) -> Var:
    x, axis, mode = node.var(0), node.axis(), _mode(node)
    indices, updates = _from_front(node, 1, x, axis), as_int(node.var(2))
    data, places = node.shape(0), node.shape(1)
    if any(own != wanted for i, (own, wanted) in enumerate(zip(data, places, strict=True)) if i != axis):
        coordinates = _coordinates(indices, places, axis)
        return on_int(x, lambda v: mb.scatter_nd(data=v, indices=coordinates, updates=updates, mode=mode))
    return on_int(
        x, lambda v: mb.scatter_along_axis(data=v, indices=indices, updates=updates, axis=axis, mode=mode)
    )


@lowers("ScatterND")
def _scatter_nd(node: Node) -> Var:
    x, mode = node.var(0), _mode(node)
    indices, updates = _nd_from_front(node, 1, x, 0), as_int(node.var(2))
    if indices.rank == 1:
        indices, updates = (mb.expand_dims(x=item, axes=[0]) for item in (indices, updates))
    return on_int(x, lambda v: mb.scatter_nd(data=v, indices=indices, updates=updates, mode=mode))


@lowers("OneHot")
def _one_hot(node: Node) -> Var:
    """Compared with 0, 1, 2 …: an index outside is no place at all, as in ONNX."""
    indices, values = node.var(0), node.var(2)
    rank = indices.rank + 1
    axis = node.axis(default=-1, rank=rank)
    depth, result = node.constant(1), node.result_shape()
    if depth is None and result is None:
        node.refuse("the depth must be constant", "requires_constant_input")
    size = int(depth.reshape(-1)[0]) if depth is not None else (result or [])[axis]
    if is_float(indices):
        indices = mb.cast(x=indices, dtype="int32")
    fixed = choose(mb.less(x=indices, y=np.int32(0)), mb.add(x=indices, y=np.int32(size)), indices)
    hot = mb.equal(x=mb.expand_dims(x=fixed, axes=[axis]), y=positions(size, axis, rank))
    off, on = (_element(as_int(values), place) for place in (0, 1))
    found = choose(hot, on, off)
    return as_bool(found) if is_bool(values) else found


def _element(var: Var, index: int) -> Var:
    return reshaped(mb.slice_by_index(x=var, begin=[index], end=[index + 1]), [])
