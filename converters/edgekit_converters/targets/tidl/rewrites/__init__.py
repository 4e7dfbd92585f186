"""Rewrites for the accelerator: the same numbers in layers that it takes. One family a file.

A rewrite looks at one node and gives what takes its place, or None where it does not apply; most apply
only where the node breaks a limit. `rewritten` runs them until nothing changes and counts them by name.
That the result computes what the hub computes is not believed here: the build runs both (`proof`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from edgekit_converters.hub.build import names_of
from edgekit_converters.hub.passes.base import run
from edgekit_converters.hub.passes.clean import NameInOrder, RemoveDeadCode
from edgekit_converters.hub.passes.fold import FoldConstants
from edgekit_converters.hub.passes.shapes import InferShapes
from edgekit_converters.hub.rewrite import applied, builder_for, remove_copies, replace
from edgekit_converters.targets.tidl.rewrites import pairs, places, products, windows
from edgekit_converters.targets.tidl.rewrites.table import REWRITES

_ROUNDS = 6
FAMILIES = (windows, products, places, pairs)


def rewritten(model: ir.Model, names: frozenset[str]) -> Mapping[str, int]:
    """Rewrite `model` in place by the rewrites called `names`; how often each applied."""
    counts: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        before = counts.total()
        known = names_of(model)
        for node in list(model.graph):
            for name, rule in REWRITES.get(node.op_type, ()):
                build = builder_for(node, known)
                values = applied(rule, node, build) if name in names else None
                if values is not None:
                    replace(model.graph, node, build, values)
                    counts[name] += 1
                    break
        remove_copies(model.graph)
        run(model, [InferShapes(), FoldConstants(), InferShapes(), RemoveDeadCode()])
        if counts.total() == before:
            break
    run(model, [NameInOrder()])
    return dict(sorted(counts.items()))


__all__ = ["FAMILIES", "REWRITES", "rewritten"]
