"""Operators and attributes newer than opset 21, said in opset 21."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import (
    attr_int,
    attr_str,
    axis_of,
    constant,
    operand,
    refuse,
    required,
    static_shape,
)
from edgekit_converters.hub.upgrade.table import above

_LIKE = {ir.DataType.INT8, ir.DataType.UINT8}, {ir.DataType.INT16, ir.DataType.UINT16}
_SAME_WIDTH = (*_LIKE, {ir.DataType.INT32, ir.DataType.UINT32}, {ir.DataType.INT64, ir.DataType.UINT64})


@above("Cast", "CastLike")
def round_mode(node: ir.Node, b: Builder) -> Result:
    """`round_mode` (24) concerns float8e8m0 only, which the hub does not take."""
    node.attributes.pop("round_mode", None)
    return None


@above("Range")
def stash(node: ir.Node, b: Builder) -> Result:
    """`stash_type` (27) is of half-precision floats."""
    node.attributes.pop("stash_type", None)
    return None


@above("DequantizeLinear")
def output_type(node: ir.Node, b: Builder) -> Result:
    """`output_dtype` (23): the type of the scale unless it says another."""
    wanted = node.attributes.pop("output_dtype", None)
    if wanted is None or wanted.as_int() in (0, required(node, 1).dtype):
        return None
    return b.cast(b.again(node, *node.inputs)[0], ir.DataType(wanted.as_int()))


@above("QuantizeLinear")
def precision(node: ir.Node, b: Builder) -> Result:
    """`precision` (23): of the division; as the input unless it says another."""
    wanted = node.attributes.pop("precision", None)
    if wanted is not None and wanted.as_int() not in (0, required(node, 0).dtype):
        refuse(node, "divides in another precision than its input's", code="unsupported_attribute")
    if required(node, 0).dtype != required(node, 1).dtype:
        refuse(node, "has a scale of another type than its input", code="unsupported_type")
    return None


@above("BitCast")
def bit_cast(node: ir.Node, b: Builder) -> Result:
    """Between integers of one width it is Cast, which wraps; anything else opset 21 cannot say."""
    x, to = required(node, 0), ir.DataType(attr_int(node, "to"))
    if x.dtype == to:
        return x
    if any({x.dtype, to} <= kinds for kinds in _SAME_WIDTH):
        return b("Cast", x, to=int(to))
    refuse(node, f"opset 21 cannot read the bits of {x.dtype} as {to}", code="unsupported_op")


@above("CumProd")
def cumulative_product(node: ir.Node, b: Builder) -> Result:
    """The product over a triangle of copies; for an axis that is computed, each one it may be."""
    x, axis = required(node, 0), required(node, 1)
    sizes, where = static_shape(x), constant(axis)
    if sizes is None:
        refuse(node, "needs known sizes", code="dynamic_shape")
    if where is not None:
        return _product(node, b, x, sizes, int(where.reshape(())) % len(sizes))
    position = b("Where", b("Less", axis, 0), b("Add", axis, len(sizes)), axis)
    found = _product(node, b, x, sizes, 0)
    for other in range(1, len(sizes)):
        found = b("Where", b("Equal", position, other), _product(node, b, x, sizes, other), found)
    return found


def _product(node: ir.Node, b: Builder, x: ir.Value, sizes: tuple[int, ...], axis: int) -> ir.Value:
    count = sizes[axis]
    mask = np.tri(count, count, -attr_int(node, "exclusive"), dtype=bool)
    if attr_int(node, "reverse"):
        mask = mask[::-1, ::-1]
    # [..., n, ...] → [..., 1, n, ...]; row i keeps the factors of result i.
    wide = b("Unsqueeze", x, [axis])
    mask = mask.reshape(count, count, *([1] * (len(sizes) - axis - 1)))
    kept = b("Where", b.const(np.ascontiguousarray(mask)), wide, b.scalar(1, x))
    return b("ReduceProd", kept, [axis + 1], keepdims=0)


@above("TensorScatter")
def tensor_scatter(node: ir.Node, b: Builder) -> Result:
    """Rows written at each sample's own place of a cache."""
    cache, update, places = required(node, 0), required(node, 1), operand(node, 2)
    sizes, new = static_shape(cache), static_shape(update)
    if sizes is None or new is None:
        refuse(node, "needs known sizes", code="dynamic_shape")
    axis = axis_of(node, len(sizes), default=-2)
    shape = [1] * len(sizes)
    shape[axis] = new[axis]
    steps = b.const(np.arange(new[axis], dtype=np.int64).reshape(shape))
    if places is not None:
        starts = b.reshape(b.cast(places, ir.DataType.INT64), -1, *([1] * (len(sizes) - 1)))
        steps = b("Add", starts, steps)
    if attr_str(node, "mode", "linear") == "circular":
        steps = b("Mod", steps, sizes[axis])
    return b("ScatterElements", cache, b("Expand", steps, list(new)), update, axis=axis)
