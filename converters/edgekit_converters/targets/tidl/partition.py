"""Which nodes the accelerator takes, and the subgraphs they form: pure, from the graph and the rules.

1. A node is refused when the rules have no layer for its op, or when it breaks one of their limits; the
   first reason counts.
2. The others form subgraphs: connected nodes of one level, where the level rises behind every refused
   node. So no path leaves a subgraph and comes back to it, and each can run in one go.
3. At most sixteen subgraphs are kept, those with the most multiplications; the rest goes to the Arm cores.

TI's own tools may cut the graph otherwise. The deny list of the compile options names every node that is
refused here, so that both mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters.quantize.assign import key
from edgekit_converters.quantize.graphs import multiplications
from edgekit_converters.targets.tidl.checks import Known
from edgekit_converters.targets.tidl.legacy import CHECKS
from edgekit_converters.targets.tidl.soc import MOST_SUBGRAPHS

LAYOUT = "layout_by_caller"
"""The reason code of what the caller of the legacy import does: it feeds planar images."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a node stays on the Arm cores."""

    reason_code: str
    detail: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """Nodes that run on the accelerator in one go, by their first outputs, and what flows in and out."""

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    multiplications: int


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The cut. `ops` is every node's op type in the graph's order; `refused` the nodes that stay outside."""

    ops: Mapping[str, str]
    refused: Mapping[str, Refused]
    subgraphs: tuple[Subgraph, ...]
    share: float

    @property
    def whole(self) -> bool:
        """Whether the accelerator runs everything in one go, but for what the caller does."""
        others = [why for why in self.refused.values() if why.reason_code != LAYOUT]
        return not others and len(self.subgraphs) == 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "nodes": len(self.ops),
            "accelerated_nodes": len(self.ops) - len(self.refused),
            "share_of_multiplications": round(self.share, 4),
            "whole": self.whole,
            "subgraphs": [
                {
                    "index": index,
                    "nodes": [{"node": name, "op": self.ops[name]} for name in item.nodes],
                    "inputs": list(item.inputs),
                    "outputs": list(item.outputs),
                    "multiplications": item.multiplications,
                }
                for index, item in enumerate(self.subgraphs)
            ],
            "arm": [
                {
                    "node": name,
                    "op": self.ops[name],
                    "reason_code": why.reason_code,
                    "detail": why.detail,
                    "remedy": why.remedy,
                }
                for name, why in self.refused.items()
            ],
        }


def partition(
    graph: ir.Graph, rules: Rules, known: Known, away: Mapping[str, Refused] | None = None
) -> Partition:
    """Cut `graph`; `away` are nodes that stay outside for reasons of their own."""
    nodes = list(graph)
    refused = {key(node): why for node in nodes if (why := _why(node, rules, known, away or {})) is not None}
    work = multiplications(graph)
    groups = _groups(nodes, refused)
    ranked = sorted(groups, key=lambda item: -sum(work.get(name, 0) for name in item))
    for group in ranked[MOST_SUBGRAPHS:]:
        refused |= dict.fromkeys(group, _too_many(len(groups)))
    order = [key(node) for node in nodes]
    by_name = dict(zip(order, nodes, strict=True))
    kept = [group for group in groups if group[0] not in refused]
    subgraphs = tuple(_subgraph([by_name[name] for name in group], work) for group in kept)
    total = sum(work.values())
    return Partition(
        ops={name: node.op_type for name, node in by_name.items()},
        refused={name: refused[name] for name in order if name in refused},
        subgraphs=subgraphs,
        share=sum(item.multiplications for item in subgraphs) / total if total else 0.0,
    )


def _why(node: ir.Node, rules: Rules, known: Known, away: Mapping[str, Refused]) -> Refused | None:
    if key(node) in away:
        return away[key(node)]
    for limit in rules.limits:
        if limit.op in ("*", node.op_type) and limit.check and CHECKS[limit.check](node, known):
            return Refused(reason_code=limit.reason_code, detail=limit.detail, remedy=limit.remedy)
    if node.domain or rules.rule(node.op_type) is None:
        return Refused(
            reason_code="unsupported_operator",
            detail=f"the accelerator has no layer for {node.op_type}",
            remedy="let it run on the Arm cores, or write the layer in other operators",
        )
    return None


def _too_many(count: int) -> Refused:
    return Refused(
        reason_code="too_many_subgraphs",
        detail=f"{count} subgraphs, and the tools take {MOST_SUBGRAPHS}: those with most work are kept",
        remedy="remove what cuts the graph: see the other refused nodes",
    )


def _groups(nodes: Sequence[ir.Node], refused: Mapping[str, Refused]) -> list[list[str]]:
    """Connected nodes of one level, in the graph's order."""
    level: dict[str, int] = {}
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in nodes:
        name = key(node)
        makers = {key(maker) for value in node.inputs if value is not None and (maker := value.producer())}
        behind = [level[item] + (item in refused and name not in refused) for item in makers]
        level[name] = max(behind, default=0)
        if name in refused:
            continue
        parent[name] = name
        for item in sorted(makers):
            if item not in refused and level[item] == level[name]:
                parent[root(item)] = root(name)
    groups: dict[str, list[str]] = {}
    for node in nodes:
        if key(node) not in refused:
            groups.setdefault(root(key(node)), []).append(key(node))
    return list(groups.values())


def _subgraph(nodes: Sequence[ir.Node], work: Mapping[str, int]) -> Subgraph:
    made = {str(item.name) for node in nodes for item in node.outputs}
    read = [value for node in nodes for value in node.inputs if value is not None]
    fed = [str(item.name) for item in read if item.const_value is None and item.name not in made]
    inner = {id(node) for node in nodes}
    leaving = [
        str(item.name)
        for node in nodes
        for item in node.outputs
        if item.is_graph_output() or any(id(reader) not in inner for reader in item.consumers())
    ]
    return Subgraph(
        nodes=tuple(key(node) for node in nodes),
        inputs=tuple(dict.fromkeys(fed)),
        outputs=tuple(leaving),
        multiplications=sum(work.get(key(node), 0) for node in nodes),
    )
