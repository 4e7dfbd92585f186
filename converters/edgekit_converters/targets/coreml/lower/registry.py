"""Which ONNX ops this lowering knows: one function an op, registered by the modules under `ops/`.

A function gets a `Node` and gives the MIL variable of its output, or a list of them (None for an output
that nobody reads). `when` says for which nodes the function is exact; a node that it turns down is left to
the hub's decompositions, and refused when those cannot do it either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx_ir as ir

if TYPE_CHECKING:
    from edgekit_converters.targets.coreml.lower.node import Node

Emit = Callable[["Node"], Any]
Accept = Callable[[ir.Node], bool]


class Rule(NamedTuple):
    """How one op type is lowered, and when."""

    emit: Emit
    when: Accept | None


RULES: dict[str, Rule] = {}


def lowers(*ops: str, when: Accept | None = None) -> Callable[[Emit], Emit]:
    """Register a function for these op types."""

    def register(function: Emit) -> Emit:
        for op in ops:
            if op in RULES:
                raise ValueError(f"{op} is registered twice")
            RULES[op] = Rule(function, when)
        return function

    return register


def accepts(node: ir.Node) -> bool:
    """Whether the lowering takes this node as it is."""
    rule = RULES.get(node.op_type)
    return rule is not None and not node.domain and (rule.when is None or rule.when(node))
