"""Rewriting the canonical graph into the operators one lowering has."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgekit_converters.hub.build import Names, names_of
from edgekit_converters.hub.decompose import DECOMPOSITIONS
from edgekit_converters.hub.functions import expand
from edgekit_converters.hub.nodes import refuse
from edgekit_converters.hub.passes.base import run
from edgekit_converters.hub.passes.clean import NameInOrder, RemoveDeadCode
from edgekit_converters.hub.passes.fold import FoldConstants
from edgekit_converters.hub.passes.shapes import InferShapes
from edgekit_converters.hub.passes.sizes import FoldSizes
from edgekit_converters.hub.rewrite import applied, builder_for, replace
from edgekit_converters.hub.table import key

Accepts = Callable[[ir.Node], bool]
_ROUNDS = 8
_DEPTH = 12


def legalise(model: ir.Model, supported: frozenset[str], accepts: Accepts | None = None) -> ir.Model:
    """A copy of the canonical `model` in the operators of `supported`.

    Args:
        model: what `canonical` made.
        supported: operator types (``domain:type`` outside the default domain).
        accepts: says of a node of a supported type whether the lowering can do it; one that it
            cannot is decomposed where the table can, and else left to be refused by the lowering.

    Raises:
        Refusal: an operator is left that is not supported (``unsupported_op``).
    """
    copy = model.clone()
    for _ in range(_ROUNDS):
        changed = _rewrite_all(copy, supported, accepts)
        run(copy, [InferShapes(), FoldSizes(), FoldConstants(), InferShapes(), RemoveDeadCode()])
        if not changed:
            break
    for node in copy.graph:
        if key(node) not in supported and node.op_type != "Identity":
            refuse(node, f"{node.op_type} is not supported")
    run(copy, [NameInOrder()])
    return copy


def _rewrite_all(model: ir.Model, supported: frozenset[str], accepts: Accepts | None) -> bool:
    """Rewrite what is not legal, new nodes included; whether anything changed."""
    names = names_of(model)
    work = [(node, 0) for node in reversed(list(model.graph))]
    changed = False
    while work:
        node, depth = work.pop()
        kept = key(node) in supported and (accepts is None or accepts(node))
        if kept or depth > _DEPTH or node.op_type == "Identity":
            continue
        made = _rewrite(model.graph, node, names)
        if made is not None:
            changed = True
            work.extend((item, depth + 1) for item in reversed(made) if item.graph is model.graph)
    return changed


def _rewrite(graph: ir.Graph, node: ir.Node, names: Names) -> list[ir.Node] | None:
    """Replace `node` by its first decomposition that applies; the new nodes."""
    for rule in DECOMPOSITIONS.of(node):
        build = builder_for(node, names)
        values = applied(rule, node, build)
        if values is not None:
            replace(graph, node, build, values)
            return build.nodes
    build = builder_for(node, names)
    values = None if node.domain else applied(expand, node, build)
    if values is None:
        return None
    replace(graph, node, build, values)
    return build.nodes
