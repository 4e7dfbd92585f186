"""Order: TopK, Unique, ReverseSequence.

Facts by trial (ai_edge_litert 2.3.0): TOPK_V2 takes FLOAT, INT8, UINT8, INT32, INT64 along the last axis and
gives the first of equals first, NaN last; UNIQUE takes a vector and keeps the order of first appearance;
REVERSE_SEQUENCE takes int64 lengths.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, axis_of, used_outputs
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import NUMBERS, D, as_bits, bitcast, from_bits, widened
from edgekit_converters.targets.tflite.lower.parts import given
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Perm, Spec, Tensor, known

_REVERSED = frozenset({D.FLOAT, D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64})
_LOWEST = -(2**63)


@lowers("TopK")
def top_k(ctx: Context, node: ir.Node) -> None:
    """The `K` largest or smallest along an axis, in order, and their places."""
    value, count = given(node, 0), given(node, 1)
    axis = axis_of(node, ctx.rank(value), default=-1)
    perm = _axis_last(ctx.rank(value), axis)
    tensor = ctx.in_order(value, perm)
    keys = _ordered(ctx, tensor, largest=bool(attr_int(node, "largest", 1)))
    number = parts.numbers_of(ctx, count)
    wanted = ctx.ints(number[0]) if number else parts.scalar(ctx, parts.place(ctx, count))
    best, places = sorted_first(ctx, keys, wanted, number[0] if number else None)
    # The keys are undone rather than the values gathered.
    values = _ordered_back(ctx, best, tensor.dtype, largest=bool(attr_int(node, "largest", 1)))
    ctx.set(node.outputs[0], values, perm)
    ctx.set(node.outputs[1], ctx.cast(places, D.INT64), perm)


def sorted_first(ctx: Context, keys: Tensor, count: Tensor, number: int | None) -> tuple[Tensor, Tensor]:
    """The `count` largest keys along the last axis and their places (int32)."""
    shape = (*keys.shape[:-1], number)
    best, places = ctx.emit_all("TOPK_V2", [keys, count], [keys.spec(shape), Spec(shape, D.INT32)])
    return best, places


def _ordered(ctx: Context, tensor: Tensor, *, largest: bool) -> Tensor:
    """Keys whose largest come first; -1 - x turns the order of integers without overflow."""
    if tensor.dtype is D.UINT64:
        tensor = parts.plus(ctx, bitcast(ctx, tensor, D.INT64), _LOWEST)
    keys = widened(ctx, tensor, NUMBERS)
    return keys if largest else _turned(ctx, keys)


def _ordered_back(ctx: Context, keys: Tensor, dtype: ir.DataType, *, largest: bool) -> Tensor:
    found = keys if largest else _turned(ctx, keys)
    if dtype is D.UINT64:
        return bitcast(ctx, parts.plus(ctx, found, _LOWEST), dtype)
    return ctx.cast(found, dtype)


def _turned(ctx: Context, keys: Tensor) -> Tensor:
    return ctx.unary("NEG", keys) if keys.dtype is D.FLOAT else parts.minus(ctx, -1, keys)


def _axis_last(rank: int, axis: int) -> Perm:
    return (*(other for other in range(rank) if other != axis), axis)


@lowers("ReverseSequence")
def reverse_sequence(ctx: Context, node: ir.Node) -> None:
    """The first elements of each sequence turned round, as many as its length says."""
    tensor = ctx.tensor(given(node, 0))
    time, batch = attr_int(node, "time_axis"), attr_int(node, "batch_axis", 1)
    bits = as_bits(ctx, tensor, _REVERSED)
    made = ctx.emit(
        "REVERSE_SEQUENCE", [bits, ctx.tensor(given(node, 1))], bits.spec(), seqDim=time, batchDim=batch
    )
    ctx.set(node.outputs[0], from_bits(ctx, made, tensor.dtype))


@lowers("Unique")
def unique(ctx: Context, node: ir.Node) -> None:
    """The different elements, where each first stands, which each element is, and how often it comes."""
    tensor = ctx.tensor(given(node, 0))
    if "axis" in node.attributes and tensor.rank != 1:
        raise parts.refuse(node, "along an axis", "unsupported_attribute")
    count = known(tensor.shape)
    total = None if count is None else math.prod(count)
    flat = widened(ctx, ctx.reshape(tensor, (total,)), NUMBERS)
    values, which = ctx.emit_all(
        "UNIQUE", [flat], [flat.spec((None,)), Spec((total,), D.INT32)], idxOutType=2
    )
    if attr_int(node, "sorted", 1):
        values, which = _sorted(ctx, values, which)
    results = [values, *_facts(ctx, values, which, used_outputs(node))]
    for out, result in zip(node.outputs, results, strict=False):
        if result is not None:
            ctx.set(out, result if out is not node.outputs[0] else ctx.cast(result, tensor.dtype))


def _sorted(ctx: Context, values: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending; `which` then points into the new order."""
    number = parts.scalar(ctx, parts.sizes(ctx, values))
    keys, order = sorted_first(ctx, _turned(ctx, values), number, None)
    # The place of each in the order: sorting the order itself, smallest first.
    _, ranks = sorted_first(ctx, _turned(ctx, order), number, None)
    return _turned(ctx, keys), parts.gather(ctx, ranks, which, 0)


def _facts(ctx: Context, values: Tensor, which: Tensor, used: tuple[bool, ...]) -> list[Tensor | None]:
    """First places, inverse, counts; None for what nobody reads."""
    number = parts.scalar(ctx, parts.sizes(ctx, values))
    wanted = (*used, False, False, False)[1:4]
    found: list[Tensor | None] = [None, ctx.cast(which, D.INT64) if wanted[1] else None, None]
    for index, op in ((0, "UNSORTED_SEGMENT_MIN"), (2, "UNSORTED_SEGMENT_SUM")):
        if wanted[index]:
            items = parts.iota(ctx, which, 0) if index == 0 else _ones(ctx, which)
            made = ctx.emit(op, [items, which, number], Spec((None,), D.INT32))
            found[index] = ctx.cast(made, D.INT64)
    return found


def _ones(ctx: Context, tensor: Tensor) -> Tensor:
    one = ctx.const(np.ones((1,), np.int32))
    return parts.expanded(ctx, one, tensor.shape, parts.sizes(ctx, tensor))
