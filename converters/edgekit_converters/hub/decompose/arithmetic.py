"""Arithmetic and logic in terms of the common operators."""

from __future__ import annotations

import math
from functools import reduce

import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_int, dims, rank, required


@rule("Sum")
def total(node: ir.Node, b: Builder) -> Result:
    """One addition after the other."""
    return reduce(lambda x, y: b("Add", x, y), _operands(node))


@rule("Mean")
def mean(node: ir.Node, b: Builder) -> Result:
    """The sum over the count."""
    values = _operands(node)
    return b("Div", reduce(lambda x, y: b("Add", x, y), values), float(len(values)))


@rule("Max", "Min")
def extreme(node: ir.Node, b: Builder) -> Result:
    """Two operands at a time."""
    values = _operands(node)
    return None if len(values) == 2 else reduce(lambda x, y: b(node.op_type, x, y), values)


def _operands(node: ir.Node) -> list[ir.Value]:
    return [required(node, index) for index in range(len(node.inputs))]


@rule("Reciprocal")
def reciprocal(node: ir.Node, b: Builder) -> Result:
    """1/x."""
    x = required(node, 0)
    return b("Div", b.scalar(1, x), x)


@rule("Xor")
def exclusive_or(node: ir.Node, b: Builder) -> Result:
    """Not equal."""
    return b("Not", b("Equal", required(node, 0), required(node, 1)))


@rule("IsNaN")
def is_nan(node: ir.Node, b: Builder) -> Result:
    """Not equal to itself."""
    x = required(node, 0)
    return b("Not", b("Equal", x, x))


@rule("IsInf")
def is_inf(node: ir.Node, b: Builder) -> Result:
    """Equal to one of the infinities."""
    x = required(node, 0)
    up, down = attr_int(node, "detect_positive", 1), attr_int(node, "detect_negative", 1)
    if up and down:
        return b("Equal", b("Abs", x), b.scalar(math.inf, x))
    if up or down:
        return b("Equal", x, b.scalar(math.inf if up else -math.inf, x))
    return b("Less", x, x)


@rule("Sign")
def sign(node: ir.Node, b: Builder) -> Result:
    """1, −1, or x itself where it is neither positive nor negative."""
    x = required(node, 0)
    low = b("Where", b("Less", x, 0), b.scalar(-1, x), x)
    return b("Where", b("Greater", x, 0), b.scalar(1, x), low)


@rule("Clip")
def clip(node: ir.Node, b: Builder) -> Result:
    """min(max(x, low), high)."""
    found = required(node, 0)
    for index, kind in ((1, "Max"), (2, "Min")):
        if len(node.inputs) > index and node.inputs[index] is not None:
            found = b(kind, found, required(node, index))
    return found


@rule("Relu")
def relu(node: ir.Node, b: Builder) -> Result:
    """max(x, 0)."""
    return b("Max", required(node, 0), 0)


@rule("LessOrEqual", "GreaterOrEqual")
def or_equal(node: ir.Node, b: Builder) -> Result:
    """One or the other (a NaN is neither)."""
    x, y = required(node, 0), required(node, 1)
    return b("Or", b(node.op_type.removesuffix("OrEqual"), x, y), b("Equal", x, y))


@rule("Flatten")
def flatten(node: ir.Node, b: Builder) -> Result:
    """Reshape to two axes."""
    x, axis = required(node, 0), attr_int(node, "axis", 1)
    sizes = dims(x)
    if sizes is None:
        return None
    axis = axis + len(sizes) if axis < 0 else axis
    head = [size for size in sizes[:axis] if size is not None]
    tail = [size for size in sizes[axis:] if size is not None]
    if len(tail) == len(sizes) - axis:
        first = math.prod(head) if len(head) == axis else -1
        return b.reshape(x, first, math.prod(tail))
    if len(head) == axis:
        return b.reshape(x, math.prod(head), -1)
    return b.reshape(x, b("ReduceProd", b.shape(x, 0, axis), [0], keepdims=1), -1)


@rule("ConstantOfShape")
def constant_of_shape(node: ir.Node, b: Builder) -> Result:
    """One element, expanded."""
    value = node.attributes.get("value")
    one = b.zero_float() if value is None else b.tensor(value.as_tensor())
    return b("Expand", one, required(node, 0))


@rule("Size")
def size_of(node: ir.Node, b: Builder) -> Result:
    """The product of the sizes."""
    return b("ReduceProd", b.shape(required(node, 0)), [0], keepdims=0)


@rule("Det")
def determinant(node: ir.Node, b: Builder) -> Result:
    """Laplace's expansion along the first row, up to 4 by 4."""
    x = required(node, 0)
    sizes = dims(x)
    if sizes is None or sizes[-1] is None or not 1 <= sizes[-1] <= 4:
        return None
    return _minor(b, x, list(range(sizes[-1])), list(range(sizes[-1])), rank(x) or 0)


def _minor(b: Builder, x: ir.Value, rows: list[int], columns: list[int], size: int) -> ir.Value:
    def element(row: int, column: int) -> ir.Value:
        line = b("Gather", x, b.const_int(row), axis=size - 2)
        return b("Gather", line, b.const_int(column), axis=size - 2)

    if len(rows) == 1:
        return element(rows[0], columns[0])
    found: ir.Value | None = None
    for index, column in enumerate(columns):
        rest = _minor(b, x, rows[1:], columns[:index] + columns[index + 1 :], size)
        term = b("Mul", element(rows[0], column), rest)
        found = term if found is None else b("Sub" if index % 2 else "Add", found, term)
    assert found is not None
    return found
