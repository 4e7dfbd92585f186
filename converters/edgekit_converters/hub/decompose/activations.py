"""Activation functions in terms of Exp, Log, Tanh, Sigmoid, Erf, Max, Min, Where.

Specification: onnx/docs/Operators.md. Forms are chosen so that no intermediate overflows where the
function itself does not.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import attr_float, required


@rule("Celu")
def celu(node: ir.Node, b: Builder) -> Result:
    """max(0, x) + min(0, α·(exp(x/α) − 1))."""
    x, alpha = required(node, 0), attr_float(node, "alpha", 1.0)
    low = b("Mul", b("Sub", b("Exp", b("Div", b("Min", x, 0.0), alpha)), 1.0), alpha)
    return b("Add", b("Relu", x), b("Min", low, 0.0))


@rule("Elu")
def elu(node: ir.Node, b: Builder) -> Result:
    """max(0, x) + α·(exp(min(0, x)) − 1), for any sign of α."""
    x, alpha = required(node, 0), attr_float(node, "alpha", 1.0)
    return b("Add", b("Relu", x), b("Mul", b("Sub", b("Exp", b("Min", x, 0.0)), 1.0), alpha))


@rule("Selu")
def selu(node: ir.Node, b: Builder) -> Result:
    """γ · elu(x, α)."""
    x = required(node, 0)
    alpha = attr_float(node, "alpha", 1.67326319217681884765625)
    gamma = attr_float(node, "gamma", 1.05070102214813232421875)
    low = b("Mul", b("Sub", b("Exp", b("Min", x, 0.0)), 1.0), alpha)
    return b("Mul", b("Add", b("Relu", x), low), gamma)
