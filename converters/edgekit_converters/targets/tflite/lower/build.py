"""From the canonical graph to the file: made legal, lowered, and what a kernel does not do decomposed.

Whether LiteRT has a kernel for a node often shows only when it is lowered (a computed scale, a dilated
pool, float64). Such a node is rewritten by the hub's decompositions, where they have one, and the graph is
lowered again; what is left is refused.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters import hub
from edgekit_converters.targets.tflite.lower.context import Options
from edgekit_converters.targets.tflite.lower.model import Lowered, attempt
from edgekit_converters.targets.tflite.lower.registry import rules

_Key = tuple[str, str]


def build(model: ir.Model, *, options: Options | None = None) -> Lowered:
    """The TFLite file of a canonical graph (float or QDQ).

    Raises:
        Refusal: a node cannot be done exactly, nor be decomposed into what can.
    """
    declined: set[_Key] = set()

    def accepts(node: ir.Node) -> bool:
        return _key(node) not in declined

    while True:
        made = attempt(hub.legalise(model, frozenset(rules()), accepts), options=options)
        if isinstance(made, Lowered):
            return made
        new = {_key(item.node) for item in made} - declined
        if not new:
            raise made[0].reason
        declined |= new


def _key(node: ir.Node) -> _Key:
    """What names a node in every copy of the graph: legalising keeps the names of values."""
    return node.op_type, next((out.name for out in node.outputs if out.name), "")
