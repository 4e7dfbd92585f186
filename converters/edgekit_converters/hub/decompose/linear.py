"""Products: Gemm, Einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    attr_float,
    attr_int,
    attr_str,
    dims,
    is_float,
    operand,
    rank,
    required,
)


@rule("Gemm")
def gemm(node: ir.Node, b: Builder) -> Result:
    """α·A·B + β·C, transposed as the attributes say."""
    left, right, bias = required(node, 0), required(node, 1), operand(node, 2)
    left = b("Transpose", left, perm=[1, 0]) if attr_int(node, "transA") else left
    right = b("Transpose", right, perm=[1, 0]) if attr_int(node, "transB") else right
    alpha, beta = attr_float(node, "alpha", 1.0), attr_float(node, "beta", 1.0)
    if not is_float(left) and (alpha != 1 or beta not in (0, 1)):
        return None
    found = b("MatMul", left, right)
    found = found if alpha == 1 else b("Mul", found, alpha)
    if bias is None or beta == 0:
        return found
    return b("Add", found, bias if beta == 1 else b("Mul", bias, beta))


@rule("Einsum")
def einsum(node: ir.Node, b: Builder) -> Result:
    """One pair of operands after the other as a matrix product."""
    values = [required(node, index) for index in range(len(node.inputs))]
    if any(rank(value) is None for value in values):
        return None
    parsed = parse(attr_str(node, "equation"), [rank(value) or 0 for value in values])
    if parsed is None:
        return None
    terms, target = parsed
    operands = [_diagonal(b, *item) for item in zip(values, terms, strict=True)]
    if any(item is None for item in operands):
        return None
    known = [item for item in operands if item is not None]
    while len(known) > 1:
        (x, xs), (y, ys), *rest = known
        needed = set(target) | {label for _, labels in rest for label in labels}
        known = [_contract(b, x, xs, y, ys, needed), *rest]
    value, labels = known[0]
    value, labels = _summed(b, value, labels, set(target))
    return _ordered(b, value, labels, target)


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """Labels of each operand and of the result; an ellipsis becomes capital Greek letters."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    widths = [size - len(term.replace("...", "")) for term, size in zip(terms, ranks, strict=True)]
    dots = [width if "..." in term else 0 for term, width in zip(terms, widths, strict=True)]
    free = "".join(chr(0x391 + index) for index in range(max(dots)))
    named = [
        term.replace("...", free[len(free) - width :] if width else "")
        for term, width in zip(terms, dots, strict=True)
    ]
    if arrow:
        return named, right.replace("...", free)
    every = "".join(term.replace("...", "") for term in terms)
    return named, free + "".join(sorted(label for label in set(every) if every.count(label) == 1))


def _diagonal(b: Builder, x: ir.Value, labels: str) -> tuple[ir.Value, str] | None:
    """A label that stands twice keeps the diagonal: all else is masked, and summed away."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first, second = labels.index(label), labels.rindex(label)
            sizes = dims(x)
            count = None if sizes is None else sizes[first]
            if count is None:
                return None
            shape = [count if axis in (first, second) else 1 for axis in range(len(labels))]
            mask = b.const(np.eye(count, dtype=bool).reshape(shape))
            x = b("ReduceSum", b("Where", mask, x, b.scalar(0, x)), [second], keepdims=0)
            labels = labels[:second] + labels[second + 1 :]
    return x, labels


def _summed(b: Builder, x: ir.Value, labels: str, needed: set[str]) -> tuple[ir.Value, str]:
    """Labels nobody needs are summed over."""
    axes = [axis for axis, label in enumerate(labels) if label not in needed]
    if not axes:
        return x, labels
    return b("ReduceSum", x, axes, keepdims=0), "".join(label for label in labels if label in needed)


def _ordered(b: Builder, x: ir.Value, labels: str, target: str) -> ir.Value:
    if labels == target:
        return x
    return b("Transpose", x, perm=[labels.index(label) for label in target])


def _contract(
    b: Builder, x: ir.Value, xs: str, y: ir.Value, ys: str, needed: set[str]
) -> tuple[ir.Value, str]:
    """The product of two operands, summed over what both have and nobody needs any more."""
    x, xs = _summed(b, x, xs, needed | set(ys))
    y, ys = _summed(b, y, ys, needed | set(xs))
    batch = [label for label in xs if label in ys and label in needed]
    inner = [label for label in xs if label in ys and label not in needed]
    left = [label for label in xs if label not in ys]
    right = [label for label in ys if label not in xs]
    if not inner:
        return _outer(b, x, xs, y, ys, [*batch, *left, *right])
    a = _folded(b, _ordered(b, x, xs, "".join((*batch, *left, *inner))), len(batch), len(left), len(inner))
    c = _folded(b, _ordered(b, y, ys, "".join((*batch, *inner, *right))), len(batch), len(inner), len(right))
    product = b("MatMul", a, c)
    sizes = [_size(b, x, xs, y, ys, label) for label in (*batch, *left, *right)]
    return b.reshape(product, *sizes) if sizes else b.reshape(product, []), "".join((*batch, *left, *right))


def _outer(b: Builder, x: ir.Value, xs: str, y: ir.Value, ys: str, target: list[str]) -> tuple[ir.Value, str]:
    """Nothing to sum over: a product with broadcasting."""
    wide = []
    for value, labels in ((x, xs), (y, ys)):
        own = [label for label in target if label in labels]
        value = _ordered(b, value, labels, "".join(own))
        missing = [axis for axis, label in enumerate(target) if label not in labels]
        wide.append(b("Unsqueeze", value, missing) if missing else value)
    return b("Mul", *wide), "".join(target)


def _folded(b: Builder, x: ir.Value, *counts: int) -> ir.Value:
    """Axes merged in groups; a group of none is of size 1."""
    parts: list[int | ir.Value] = []
    start = 0
    for count in counts:
        parts.append(_product(b, x, start, start + count))
        start += count
    return b.reshape(x, *parts)


def _product(b: Builder, x: ir.Value, start: int, end: int) -> int | ir.Value:
    sizes = (dims(x) or ())[start:end]
    known = [size for size in sizes if size is not None]
    if len(known) == end - start:
        return math.prod(known)
    if end - start == 1:
        return b.size(x, start)
    return b("ReduceProd", b.shape(x, start, end), [0], keepdims=1)


def _size(b: Builder, x: ir.Value, xs: str, y: ir.Value, ys: str, label: str) -> int | ir.Value:
    """The size of a label; where it is 1 in one operand, the other says it."""
    found = [
        _product(b, v, labels.index(label), labels.index(label) + 1)
        for v, labels in ((x, xs), (y, ys))
        if label in labels
    ]
    return next((size for size in found if size != 1), found[0])
