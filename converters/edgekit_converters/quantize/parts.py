"""An op that the rules do not know stays float as a whole, also where a lowering takes it apart.

The parts of a layer normalisation are ops with rules of their own (Sub, Mul, ReduceMean), but squares and
variances on an 8-bit grid are not what anyone means by quantizing it. What holds products with weights
(attention, recurrent layers) is worth its integers, and so is a batch normalisation's factor and shift.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters.quantize.roles import MOVERS, WEIGHTED

_TAKEN_APART_GLADLY = frozenset({*MOVERS, "BatchNormalization"})


def float_parts(before: ir.Graph, after: ir.Graph, rules: Rules, kind: str) -> frozenset[str]:
    """First outputs of the nodes of `after` that an op of `before` without a rule was taken apart into.

    The hub names what it makes for tensor ``t`` either ``t`` or ``t.`` and more.
    """
    given = {str(item.name) for node in before for item in node.outputs}
    found: set[str] = set()
    for node in before:
        name = str(node.outputs[0].name)
        if node.op_type in _TAKEN_APART_GLADLY or rules.rule(node.op_type, kind) is not None:
            continue
        inner = [item for item in after if _belongs(str(item.outputs[0].name), name, given)]
        if len(inner) > 1 and not any(item.op_type in WEIGHTED for item in inner):
            found |= {str(item.outputs[0].name) for item in inner}
    return frozenset(found)


def _belongs(made: str, name: str, given: set[str]) -> bool:
    return made == name or (made.startswith(f"{name}.") and made not in given)
