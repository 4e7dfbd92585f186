"""Gelu and HardSwish as exporters write them out.

Specification of the forms: Operators.md, the function bodies of Gelu and HardSwish.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgekit_converters.hub.build import Builder
from edgekit_converters.hub.nodes import attr_float, is_float, operand
from edgekit_converters.hub.patterns.reading import (
    factors,
    factors_of,
    is_number,
    made_by,
    number_of,
    pairs,
)


def gelu(node: ir.Node, b: Builder) -> ir.Value | None:
    """x/2 · (1 + erf(x/√2)), and its form with tanh."""
    if node.op_type not in ("Mul", "Div") or not is_float(node.outputs[0]):
        return None
    for parts, scale in factors_of(node):
        if len(parts) == 2 and math.isclose(scale, 0.5, rel_tol=1e-5):
            for x, gate in (parts, parts[::-1]):
                form = _gate_of(gate, x)
                if form is not None:
                    return b("Gelu", x, approximate=form)
    return None


def _gate_of(gate: ir.Value, x: ir.Value) -> str | None:
    """Whether `gate` is 1 + erf(x/√2) or 1 + tanh(√(2/π)·(x + 0.044715·x³)), and which."""
    for inner, one in pairs(made_by(gate, "Add")):
        if not is_number(one, 1.0):
            continue
        erf, tanh = made_by(inner, "Erf"), made_by(inner, "Tanh")
        if erf is not None and erf.inputs[0] is not None:
            scales = [scale for parts, scale in factors(erf.inputs[0]) if parts == (x,)]
            if any(math.isclose(scale, math.sqrt(0.5), rel_tol=1e-5) for scale in scales):
                return "none"
        if tanh is not None and tanh.inputs[0] is not None and _is_cubic(tanh.inputs[0], x):
            return "tanh"
    return None


def _is_cubic(value: ir.Value, x: ir.Value) -> bool:
    """√(2/π)·(x + 0.044715·x³), the cube as a power or as a product."""
    for parts, scale in factors(value):
        if len(parts) != 1 or not math.isclose(scale, math.sqrt(2 / math.pi), rel_tol=1e-4):
            continue
        for one, other in pairs(made_by(parts[0], "Add")):
            if one is x and any(_is_cube(*item, x) for item in factors(other)):
                return True
    return False


def _is_cube(parts: tuple[ir.Value, ...], scale: float, x: ir.Value) -> bool:
    if not math.isclose(scale, 0.044715, rel_tol=1e-4):
        return False
    if parts == (x, x, x):
        return True
    power = made_by(parts[0], "Pow") if len(parts) == 1 else None
    return power is not None and power.inputs[0] is x and is_number(power.inputs[1], 3.0)


def hard_swish(node: ir.Node, b: Builder) -> ir.Value | None:
    """x · HardSigmoid(x; 1/6, 1/2), or x · clip(x + 3, 0, 6)/6."""
    if node.op_type not in ("Mul", "Div") or not is_float(node.outputs[0]):
        return None
    for parts, scale in factors_of(node):
        if len(parts) != 2:
            continue
        for x, gate in (parts, parts[::-1]):
            hard = made_by(gate, "HardSigmoid")
            sixth = hard is not None and math.isclose(attr_float(hard, "alpha", 0.2), 1 / 6, rel_tol=1e-4)
            half = hard is not None and math.isclose(attr_float(hard, "beta", 0.5), 0.5, rel_tol=1e-4)
            if hard is not None and hard.inputs[0] is x and sixth and half and math.isclose(scale, 1.0):
                return b("HardSwish", x)
            if math.isclose(scale, 1 / 6, rel_tol=1e-5) and _is_shifted_clip(gate, x):
                return b("HardSwish", x)
    return None


def _is_shifted_clip(value: ir.Value, x: ir.Value) -> bool:
    """clip(x + 3, 0, 6)."""
    clip = made_by(value, "Clip")
    if clip is None or not (is_number(operand(clip, 2), 6.0) and number_of(operand(clip, 1)) == 0.0):
        return False
    return any(one is x and is_number(other, 3.0) for one, other in pairs(made_by(clip.inputs[0], "Add")))
