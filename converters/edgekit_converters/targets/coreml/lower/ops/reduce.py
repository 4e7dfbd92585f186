"""Reductions, places of extremes, running sums. Specification: onnx/docs/Operators.md.

Norms and logarithms are put together from sums: nothing depends on MIL's defaults. In case of a tie MIL
leaves open which index `reduce_argmax` gives, ONNX does not: the index is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.targets.coreml.lower.node import (
    Node,
    Var,
    as_bool,
    as_int,
    choose,
    is_bool,
    is_float,
    reshaped,
)
from edgekit_converters.targets.coreml.lower.ops.activation import log
from edgekit_converters.targets.coreml.lower.ops.arithmetic import truncated_div
from edgekit_converters.targets.coreml.lower.registry import lowers

Fold = Callable[[Var, list[int], bool], Var]


def _sum(x: Var, axes: list[int], keep: bool) -> Var:
    return mb.reduce_sum(x=x, axes=axes, keep_dims=keep)


def _square(x: Var) -> Var:
    return mb.mul(x=x, y=x)


def _log_sum_exp(x: Var, axes: list[int], keep: bool) -> Var:
    peak = mb.reduce_max(x=x, axes=axes, keep_dims=True)
    endless = mb.equal(x=mb.abs(x=peak), y=np.float32(np.inf))
    safe = choose(endless, np.float32(0), peak)
    found = mb.add(x=log(_sum(mb.exp(x=mb.sub(x=x, y=safe)), axes, True)), y=safe)
    return found if keep else mb.squeeze(x=found, axes=axes)


_FOLDS: dict[str, Fold] = {
    "ReduceL1": lambda x, axes, keep: _sum(mb.abs(x=x), axes, keep),
    "ReduceL2": lambda x, axes, keep: mb.sqrt(x=_sum(_square(x), axes, keep)),
    "ReduceLogSum": lambda x, axes, keep: log(_sum(x, axes, keep)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": lambda x, axes, keep: mb.reduce_max(x=x, axes=axes, keep_dims=keep),
    "ReduceMean": lambda x, axes, keep: mb.reduce_mean(x=x, axes=axes, keep_dims=keep),
    "ReduceMin": lambda x, axes, keep: mb.reduce_min(x=x, axes=axes, keep_dims=keep),
    "ReduceProd": lambda x, axes, keep: mb.reduce_prod(x=x, axes=axes, keep_dims=keep),
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(_square(x), axes, keep),
}
_WHOLE = ("ReduceL1", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")


@lowers(*_FOLDS)
def _reduce(node: Node) -> Var:
    x, keep = node.var(0), bool(node.integer("keepdims", 1))
    if node.width() is not None and node.op not in ("ReduceMax", "ReduceMin"):
        node.refuse("sums of narrow whole numbers wrap around", "unsupported_type")
    if node.has(1) and node.constant(1) is None and x.rank:
        return _fed_reduce(node, x, keep)
    axes = sorted(axis % x.rank for axis in node.numbers(1) or []) if x.rank else []
    if not axes and node.integer("noop_with_empty_axes"):
        return mb.identity(x=x)
    if x.rank == 0:
        return reshaped(_folded(node, mb.expand_dims(x=x, axes=[0]), [0], True), [])
    return _folded(node, x, axes or list(range(x.rank)), keep)


def _fed_reduce(node: Node, x: Var, keep: bool) -> Var:
    """Axes that are fed: the shapes leave one set of them, or a few that the program chooses from."""
    result, sizes = node.result_shape(), node.sizes(x)
    if result is None:
        node.refuse("the axes must be constant", "requires_constant_input")
    sets = [
        list(axes)
        for axes in combinations(range(x.rank), node.shape(1)[0])
        if result == _left_over(sizes, axes, keep)
    ]
    if not sets:
        node.refuse("no axes give this shape", "shapes_differ")
    found = _folded(node, x, sets[0], keep)
    if len(sets) == 1:
        return found
    fed = node.var(1)
    front = choose(mb.less(x=fed, y=np.int32(0)), mb.add(x=fed, y=np.int32(x.rank)), fed)
    code = mb.reduce_sum(x=mb.pow(x=np.int32(2), y=front), axes=[0], keep_dims=False)
    for axes in sets[1:]:
        chosen = mb.equal(x=code, y=np.int32(sum(1 << axis for axis in axes)))
        found = choose(chosen, _folded(node, x, axes, keep), found)
    return found


def _left_over(sizes: list[int], axes: Sequence[int], keep: bool) -> list[int]:
    return [1 if a in axes else size for a, size in enumerate(sizes) if keep or a not in axes]


def _folded(node: Node, x: Var, axes: list[int], keep: bool) -> Var:
    if is_bool(x):
        return as_bool(_FOLDS[node.op](as_int(x), axes, keep))
    if is_float(x) or node.op in _WHOLE:
        return _FOLDS[node.op](x, axes, keep)
    if node.op == "ReduceMean":
        sizes = node.sizes(x)
        count = int(np.prod([sizes[axis] for axis in axes]))
        return truncated_div(_sum(x, axes, keep), mb.const(val=np.int32(count)))
    node.refuse("of whole numbers", "unsupported_type")


@lowers("ArgMax", "ArgMin")
def _arg(node: Node) -> Var:
    x, axis, keep = node.var(0), node.axis(), bool(node.integer("keepdims", 1))
    peak = (mb.reduce_max if node.op == "ArgMax" else mb.reduce_min)(x=x, axes=[axis], keep_dims=True)
    size = node.shape()[axis]
    last = bool(node.integer("select_last_index"))
    places = positions(size, axis, x.rank)
    found = choose(mb.equal(x=x, y=peak), places, np.int32(-1 if last else size))
    fold = mb.reduce_max if last else mb.reduce_min
    return fold(x=found, axes=[axis], keep_dims=keep)


def positions(size: int, axis: int, rank: int) -> np.ndarray:
    """0, 1, 2 … along `axis` of `rank` axes."""
    return np.arange(size, dtype=np.int32).reshape([-1 if i == axis else 1 for i in range(rank)])


@lowers("Hardmax")
def _hardmax(node: Node) -> Var:
    x, axis = node.var(0), node.axis(default=-1)
    places = positions(node.shape()[axis], axis, x.rank)
    peak = mb.equal(x=x, y=mb.reduce_max(x=x, axes=[axis], keep_dims=True))
    first = mb.reduce_min(x=choose(peak, places, np.int32(1 << 30)), axes=[axis], keep_dims=True)
    return mb.cast(x=mb.equal(x=first, y=places), dtype="fp32")


@lowers("CumSum")
def _cumsum(node: Node) -> Var:
    x = node.var(0)
    if node.width() is not None:
        node.refuse("sums of narrow whole numbers wrap around", "unsupported_type")
    options = {"exclusive": bool(node.integer("exclusive")), "reverse": bool(node.integer("reverse"))}
    axis = node.constant(1)
    if axis is not None:
        return mb.cumsum(x=x, axis=int(axis.reshape(-1)[0]) % int(x.rank), **options)
    fed = reshaped(node.var(1), [])
    fed = choose(mb.less(x=fed, y=np.int32(0)), mb.add(x=fed, y=np.int32(x.rank)), fed)
    found = mb.cumsum(x=x, axis=0, **options)
    for other in range(1, x.rank):
        chosen = mb.equal(x=fed, y=np.int32(other))
        found = choose(chosen, mb.cumsum(x=x, axis=other, **options), found)
    return found


@lowers("TopK")
def _topk(node: Node) -> list[Var]:
    x, axis = node.var(0), node.axis(default=-1)
    result = node.result_shape()
    k = node.constant(1)
    if k is None and result is None:
        node.refuse("k must be constant", "requires_constant_input")
    size = int(k.reshape(-1)[0]) if k is not None else (result or [])[axis]
    if node.scope.target < 17 and not is_float(x):
        node.refuse("whole numbers before iOS 17", "unsupported_type")
    found = mb.topk(x=x, k=size, axis=axis, ascending=not node.integer("largest", 1))
    return list(found)
