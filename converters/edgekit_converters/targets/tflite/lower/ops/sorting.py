"""Order: TopK, ReverseSequence.

Facts by trial (ai_edge_litert 2.3.0): TOPK_V2 takes FLOAT, INT8, UINT8, INT32, INT64 along the last axis and
gives the first of equals first, NaN last; UNIQUE takes a vector and keeps the order of first appearance;
REVERSE_SEQUENCE takes int64 lengths.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, axis_of
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import NUMBERS, D, as_bits, bitcast, from_bits, widened
from edgekit_converters.targets.tflite.lower.parts import given
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Perm, Spec, Tensor

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
    wanted = ctx.ints(number[0]) if number else parts.scalar(ctx, parts.whole(ctx, count))
    best, places = sorted_first(ctx, keys, wanted, number[0] if number else None)
    # The keys are undone rather than the values gathered.
    values = _ordered_back(ctx, best, tensor.dtype, largest=bool(attr_int(node, "largest", 1)))
    ctx.set(node.outputs[0], values, perm)
    for out in node.outputs[1:]:  # dropped when nobody reads it
        ctx.set(out, ctx.cast(places, D.INT64), perm)


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
    return keys if largest else turned(ctx, keys)


def _ordered_back(ctx: Context, keys: Tensor, dtype: ir.DataType, *, largest: bool) -> Tensor:
    found = keys if largest else turned(ctx, keys)
    if dtype is D.UINT64:
        return bitcast(ctx, parts.plus(ctx, found, _LOWEST), dtype)
    return ctx.cast(found, dtype)


def turned(ctx: Context, keys: Tensor) -> Tensor:
    """Keys in the opposite order."""
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
