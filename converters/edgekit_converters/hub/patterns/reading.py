"""Reading a piece of graph backwards from its result: who computed it, from which factors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from edgekit_converters.hub.nodes import constant, operand


def made_by(value: ir.Value | None, kind: str, *, alone: bool = True) -> ir.Node | None:
    """The node of `kind` that computes `value`, when nobody else reads it."""
    node = None if value is None else value.producer()
    if node is None or value is None or node.op_type != kind or node.domain:
        return None
    return None if alone and (len(value.uses()) > 1 or value.is_graph_output()) else node


def number_of(value: ir.Value | None) -> float | None:
    """A constant of one element."""
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def is_number(value: ir.Value | None, wanted: float) -> bool:
    """Whether `value` is the constant `wanted`, up to the digits exporters write."""
    found = number_of(value)
    return found is not None and math.isclose(found, wanted, rel_tol=1e-4)


def pairs(node: ir.Node | None) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The operands of a commutative node, both ways round."""
    if node is not None and len(node.inputs) == 2:
        first, second = node.inputs
        if first is not None and second is not None:
            yield first, second
            yield second, first


def factors(value: ir.Value, scale: float = 1.0) -> Iterator[tuple[tuple[ir.Value, ...], float]]:
    """`value` as a product of two or three values and a number, whatever order it was written in."""
    yield (value,), scale
    product = made_by(value, "Mul")
    for one, other in pairs(product):
        number = number_of(other)
        if number is not None:
            yield from factors(one, scale * number)
        elif product is not None and one is product.inputs[0]:
            for left, left_scale in factors(one):
                for right, right_scale in factors(other):
                    yield (*left, *right), scale * left_scale * right_scale
    quotient = made_by(value, "Div")
    divisor = number_of(operand(quotient, 1)) if quotient is not None else None
    if quotient is not None and divisor and quotient.inputs[0] is not None:
        yield from factors(quotient.inputs[0], scale / divisor)


def factors_of(node: ir.Node) -> Iterator[tuple[tuple[ir.Value, ...], float]]:
    """The factors of what `node` computes, whoever reads it."""
    if node.op_type == "Div":
        divisor, dividend = number_of(operand(node, 1)), node.inputs[0]
        if divisor and dividend is not None:
            yield from factors(dividend, 1 / divisor)
        return
    for one, other in pairs(node):
        number = number_of(other)
        if number is not None:
            yield from factors(one, number)
        elif one is node.inputs[0]:
            for left, left_scale in factors(one):
                for right, right_scale in factors(other):
                    yield (*left, *right), left_scale * right_scale
