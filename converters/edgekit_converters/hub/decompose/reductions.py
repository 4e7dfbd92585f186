"""Reductions in terms of ReduceSum, ReduceMax and element-wise functions. Axes may be computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_int, axis_of, is_float, numpy_dtype, operand, rank, required


def _reduced(node: ir.Node, b: Builder, kind: str, x: ir.Value, keepdims: int | None = None) -> ir.Value:
    """`x` reduced over the node's axes."""
    keep = attr_int(node, "keepdims", 1) if keepdims is None else keepdims
    noop = attr_int(node, "noop_with_empty_axes") or None
    return b(kind, x, operand(node, 1), keepdims=keep, noop_with_empty_axes=noop)


def _sum_of(before: Callable[[Builder, ir.Value], ir.Value], after: str | None) -> Callable[..., Result]:
    def apply(node: ir.Node, b: Builder) -> Result:
        found = _reduced(node, b, "ReduceSum", before(b, required(node, 0)))
        if after is None:
            return found
        if is_float(found):
            return b(after, found)
        # Roots and logarithms of integers are taken in floats and cut off.
        return b.cast(b(after, b.cast(found, ir.DataType.DOUBLE)), found.dtype)

    return apply


def _square(b: Builder, x: ir.Value) -> ir.Value:
    return b("Mul", x, x)


rule("ReduceL1")(_sum_of(lambda b, x: b("Abs", x), None))
rule("ReduceL2")(_sum_of(_square, "Sqrt"))
rule("ReduceSumSquare")(_sum_of(_square, None))
rule("ReduceLogSum")(_sum_of(lambda b, x: x, "Log"))


@rule("ReduceLogSumExp")
def log_sum_exp(node: ir.Node, b: Builder) -> Result:
    """m + log Σ exp(x − m), m the largest element, or the largest finite number."""
    x = required(node, 0)
    if not is_float(x):
        return None
    limit = float(np.finfo(numpy_dtype(x)).max) if numpy_dtype(x).kind == "f" else 3e38
    top = b("Min", b("Max", _reduced(node, b, "ReduceMax", x, 1), -limit), limit)
    whole = _reduced(node, b, "ReduceSum", b("Exp", b("Sub", x, top)))
    if not attr_int(node, "keepdims", 1):
        top = b("Min", b("Max", _reduced(node, b, "ReduceMax", x), -limit), limit)
    return b("Add", b("Log", whole), top)


@rule("ReduceMean")
def mean(node: ir.Node, b: Builder) -> Result:
    """The sum over the count, of integers cut off towards zero."""
    x = required(node, 0)
    if is_float(x):
        return None
    return b.cast(_reduced(node, b, "ReduceMean", b.cast(x, ir.DataType.FLOAT)), x.dtype)


@rule("LpNormalization")
def lp_normalization(node: ir.Node, b: Builder) -> Result:
    """x over its norm along the axis; 0 where the norm is 0."""
    x, size = required(node, 0), rank(required(node, 0))
    axis = [axis_of(node, size, default=-1)] if size else [attr_int(node, "axis", -1)]
    if attr_int(node, "p", 2) == 1:
        norm = b("ReduceSum", b("Abs", x), axis, keepdims=1)
    else:
        norm = b("Sqrt", b("ReduceSum", _square(b, x), axis, keepdims=1))
    return b("Div", x, b("Where", b("Equal", norm, b.scalar(0, x)), b.scalar(1, x), norm))
