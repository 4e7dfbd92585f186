"""Unique: of the flattened tensor by the kernel, along an axis by comparing all rows with each other.

Facts by trial (ai_edge_litert 2.3.0): UNIQUE takes a vector and keeps the order of first appearance;
ARG_MAX gives the first of equals.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, axis_of, used_outputs
from edgekit_converters.targets.tflite.lower import parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.numbers import NUMBERS, D, as_bits, from_bits, widened
from edgekit_converters.targets.tflite.lower.ops.sorting import sorted_first, turned
from edgekit_converters.targets.tflite.lower.parts import given
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor, known

_MOST_PAIRS = 2**22
"""Rows times rows times row length that are compared at most."""


@lowers("Unique")
def unique(ctx: Context, node: ir.Node) -> None:
    """The different elements, where each first stands, which each element is, and how often it comes."""
    tensor = ctx.tensor(given(node, 0))
    if "axis" in node.attributes and tensor.rank != 1:
        return _along_axis(ctx, node, tensor)
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
    return None


def _sorted(ctx: Context, values: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending; `which` then points into the new order."""
    number = parts.scalar(ctx, parts.sizes(ctx, values))
    keys, order = sorted_first(ctx, turned(ctx, values), number, None)
    # The place of each in the order: sorting the order itself, smallest first.
    _, ranks = sorted_first(ctx, turned(ctx, order), number, None)
    return turned(ctx, keys), parts.gather(ctx, ranks, which, 0)


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


def _along_axis(ctx: Context, node: ir.Node, tensor: Tensor) -> None:
    """Rows are the slices along the axis; each is compared with each."""
    shape, axis = known(tensor.shape), axis_of(node, tensor.rank)
    if shape is None:
        raise parts.refuse(node, "sizes are known only when the model runs", "dynamic_shape")
    count, length = shape[axis], math.prod(shape) // max(shape[axis], 1)
    if not 0 < count * count * length <= _MOST_PAIRS:
        raise parts.refuse(node, f"{count} rows of {length}", "unsupported_attribute")
    order = (axis, *(other for other in range(tensor.rank) if other != axis))
    rows = ctx.reshape(ctx.transpose(widened(ctx, tensor, NUMBERS), order), (count, length))
    first = _first_equal(ctx, rows)
    is_first = parts.compare(ctx, "EQUAL", first, ctx.const(np.arange(count, dtype=np.int32)))
    places = ctx.cast(ctx.reshape(ctx.emit("WHERE", [is_first], Spec((None, 1), D.INT64)), (None,)), D.INT32)
    ranks = _appearance(ctx, is_first)
    if attr_int(node, "sorted", 1):
        ranks = _ranks(ctx, rows, is_first)
        keys = parts.gather(ctx, ranks, places, 0)
        _, by_key = sorted_first(ctx, turned(ctx, keys), parts.scalar(ctx, parts.sizes(ctx, keys)), None)
        places = parts.gather(ctx, places, by_key, 0)
    which = parts.gather(ctx, ranks, first, 0)
    bits = as_bits(ctx, tensor)
    values = from_bits(ctx, parts.gather(ctx, bits, places, axis), tensor.dtype)
    results = [values, *_facts(ctx, places, which, used_outputs(node))]
    for out, result in zip(node.outputs, results, strict=False):
        if result is not None:
            ctx.set(out, result)


def _pairs(ctx: Context, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row against each: (count, 1, length) and (1, count, length)."""
    count, length = rows.shape
    return ctx.reshape(rows, (count, 1, length)), ctx.reshape(rows, (1, count, length))


def _first_equal(ctx: Context, rows: Tensor) -> Tensor:
    """For each row the place of the first row that is equal."""
    equal = parts.compare(ctx, "EQUAL", *_pairs(ctx, rows))
    whole = ctx.cast(parts.reduced(ctx, "REDUCE_ALL", equal, [2], keep=False), D.INT32)
    return ctx.emit("ARG_MAX", [whole, ctx.ints(1)], Spec(rows.shape[:1], D.INT32), outputType=2)


def _appearance(ctx: Context, is_first: Tensor) -> Tensor:
    """Number of a first row among the first rows."""
    ones = ctx.cast(is_first, D.INT32)
    return ctx.emit("CUMSUM", [ones, ctx.ints(0)], ones.spec(), exclusive=True)


def _ranks(ctx: Context, rows: Tensor, is_first: Tensor) -> Tensor:
    """For each row how many different rows stand before it, compared element by element."""
    count, length = rows.shape
    one, other = _pairs(ctx, rows)
    differ = ctx.cast(parts.compare(ctx, "NOT_EQUAL", one, other), D.INT32)
    where = ctx.emit("ARG_MAX", [differ, ctx.ints(2)], Spec((count, count), D.INT32), outputType=2)
    columns = ctx.const(np.arange(length or 0, dtype=np.int32))
    here = parts.compare(ctx, "EQUAL", ctx.reshape(where, (count, count, 1)), columns)
    less = parts.compare(ctx, "LOGICAL_AND", here, parts.compare(ctx, "LESS", one, other))
    before = parts.reduced(ctx, "REDUCE_ANY", less, [2], keep=False)
    counted = parts.compare(ctx, "LOGICAL_AND", before, ctx.reshape(is_first, (count, 1)))
    return parts.reduced(ctx, "SUM", ctx.cast(counted, D.INT32), [0], keep=False)
