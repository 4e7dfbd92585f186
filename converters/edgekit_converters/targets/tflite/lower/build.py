"""From the canonical graph to the file: made legal, lowered, and what a kernel does not do decomposed.

Whether LiteRT has a kernel for a node often shows only when it is lowered (a computed scale, a dilated
pool, float64). Such a node is rewritten by the hub's decompositions, where they have one, and the graph is
lowered again; what is left is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower.context import Options
from edgekit_converters.targets.tflite.lower.model import Lowered, Refused, attempt
from edgekit_converters.targets.tflite.lower.registry import rules

Accepts = Callable[[ir.Node], bool]
_Key = tuple[str, str]


def build(
    model: ir.Model,
    *,
    options: Options | None = None,
    supported: frozenset[str] | None = None,
    accepts: Accepts | None = None,
) -> Lowered:
    """The TFLite file of a canonical graph (float or QDQ).

    Args:
        model: the canonical graph.
        options: how to lower.
        supported: op types that the runtime takes, by default all that have a lowering.
        accepts: the runtime's say on single nodes; what it declines is decomposed.

    Raises:
        Refusal: a node cannot be done exactly, nor be decomposed into what can.
    """
    declined: set[_Key] = set()
    known = frozenset(rules()) if supported is None else supported

    def accepted(node: ir.Node) -> bool:
        return _key(node) not in declined and (accepts is None or accepts(node))

    while True:
        made = attempt(hub.legalise(model, known, accepted), options=options)
        if isinstance(made, Lowered):
            return made
        new = {_key(item.node) for item in made} - declined
        if not new:
            raise _named(made[0], model, declined)
        declined |= new


def _named(refused: Refused, model: ir.Model, declined: set[_Key]) -> Refusal:
    """The reason, with the node; where that is a part of what a decomposed one became, with those too."""
    reason, node = refused.reason, refused.node
    if reason.where is None and (node.name or "") not in reason.message:
        reason.where = f"{node.op_type} {node.name or node.outputs[0].name}"
    own = {_key(item): item for item in model.graph}
    whole = [f"{op} {own[op, out].name or out}" for op, out in sorted(declined) if (op, out) in own]
    if _key(node) not in own and whole:
        reason.message += f"; it is a part of what was made of {', '.join(whole[:3])}"
    return reason


def _key(node: ir.Node) -> _Key:
    """What names a node in every copy of the graph: legalising keeps the names of values."""
    return node.op_type, next((out.name for out in node.outputs if out.name), "")
