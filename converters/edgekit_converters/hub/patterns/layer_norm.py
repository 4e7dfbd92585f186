"""LayerNormalization over the last axis as exporters write it out.

Mean, centred values, mean of their squares, root, quotient, a constant scale and a constant bias.
Specification of the form: Operators.md, the function body of LayerNormalization.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder
from edgekit_converters.hub.nodes import Array, attr_int, constant, dims, ints, operand, rank
from edgekit_converters.hub.patterns.reading import is_number, made_by, number_of, pairs


@dataclass(frozen=True)
class _Unit:
    """(x − mean)/√(variance + ε) over the last axes."""

    x: ir.Value
    axis: int
    epsilon: float


def layer_norm(node: ir.Node, b: Builder) -> ir.Value | None:
    """The unit form times a constant scale, plus a constant bias, of the shape of the last axes."""
    if node.op_type == "Add":
        for one, bias in pairs(node):
            for unit, scale in _scaled(made_by(one, "Mul")):
                if _fits(unit, scale) and _fits(unit, bias):
                    return _write_norm(b, unit, scale, bias)
    return None


def _scaled(node: ir.Node | None) -> Iterator[tuple[_Unit, ir.Value]]:
    for one, scale in pairs(node):
        unit = _unit(made_by(one, "Div"))
        if unit is not None:
            yield unit, scale


def _unit(node: ir.Node | None) -> _Unit | None:
    if node is None:
        return None
    centred = node.inputs[0]
    root = made_by(node.inputs[1], "Sqrt")
    whole = made_by(root.inputs[0], "Add") if root is not None else None
    for variance, small in pairs(whole):
        epsilon, mean = number_of(small), made_by(variance, "ReduceMean")
        if epsilon is None or mean is None or centred is None or not _is_square(mean.inputs[0], centred):
            continue
        found = _centred(centred)
        if found is not None and ints(operand(mean, 1)) is not None and _axes(mean, found) == _tail(found):
            return _Unit(found, _tail(found)[0], epsilon) if _same_axes(centred, mean, found) else None
    return None


def _centred(value: ir.Value) -> ir.Value | None:
    """x of x − ReduceMean(x)."""
    sub = made_by(value, "Sub", alone=False)
    mean = made_by(sub.inputs[1], "ReduceMean") if sub is not None else None
    if sub is None or mean is None or mean.inputs[0] is not sub.inputs[0]:
        return None
    return sub.inputs[0]


def _same_axes(centred: ir.Value, mean: ir.Node, x: ir.Value) -> bool:
    sub = centred.producer()
    first = None if sub is None or sub.inputs[1] is None else sub.inputs[1].producer()
    kept = first is not None and attr_int(first, "keepdims", 1) == 1 and attr_int(mean, "keepdims", 1) == 1
    # The centred value is read by the square (once or twice) and by the division, nobody else.
    readers = {use.node for use in centred.uses()}
    alone = len(readers) == 2 and not centred.is_graph_output()
    return kept and alone and first is not None and _axes(first, x) == _axes(mean, x)


def _axes(node: ir.Node, x: ir.Value) -> tuple[int, ...]:
    """The axes of a reduction in order; empty when they or the rank are not known."""
    given, size = ints(operand(node, 1)), rank(x)
    return () if given is None or size is None else tuple(sorted(axis % size for axis in given))


def _tail(x: ir.Value) -> tuple[int, ...]:
    """The last axis of `x`, the one that exporters normalise over."""
    size = rank(x)
    return (size - 1,) if size else (-1,)


def _is_square(value: ir.Value | None, centred: ir.Value) -> bool:
    power, product = made_by(value, "Pow"), made_by(value, "Mul")
    if power is not None:
        return power.inputs[0] is centred and is_number(power.inputs[1], 2.0)
    return product is not None and product.inputs[0] is centred and product.inputs[1] is centred


def _fits(unit: _Unit, value: ir.Value) -> bool:
    """Whether `value` is a constant vector along the normalised axis."""
    array, sizes = constant(value), dims(unit.x)
    return array is not None and sizes is not None and array.size == sizes[-1] == array.shape[-1]


def _write_norm(b: Builder, unit: _Unit, scale: ir.Value, bias: ir.Value) -> ir.Value:
    flat: list[Array] = [np.asarray(constant(item)).reshape(-1) for item in (scale, bias)]
    return b("LayerNormalization", unit.x, *flat, axis=unit.axis, epsilon=unit.epsilon)
