"""Constant folding: what depends on constants only is computed once, here.

Everything foldable is run in one onnxruntime session without optimizations, weights fed and not
serialised; what that does not take is tried node by node in onnx's reference evaluator, and left
alone when that fails too. Sizes are looked at before anything is allocated.
"""

from __future__ import annotations

import math
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import OPSET, Names, names_of
from edgekit_converters.hub.evaluate import evaluate
from edgekit_converters.hub.nodes import static_shape
from edgekit_converters.hub.passes.admit import RANDOM
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import NO_CONSTANT_NODES
from edgekit_converters.hub.passes.sizes import check_size
from edgekit_converters.hub.rewrite import builder_for, replace

_SMALL = 2**24
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_GROWING = frozenset({"ConstantOfShape", "Expand", "Tile", "Range", "Resize", "OneHot", "EyeLike", "Pad"})


class FoldConstants(Pass):
    """Replace what is constant by its value. `folded` counts the nodes over the pass's life."""

    requires = (NO_CONSTANT_NODES,)
    keep: ClassVar[frozenset[str]] = frozenset({"QuantizeLinear", "DequantizeLinear"})

    def __init__(self) -> None:
        self.folded = 0

    def call(self, model: ir.Model) -> PassResult:
        names = names_of(model)
        before = self.folded
        nodes = self._foldable(model.graph)
        if nodes:
            self.folded += _compute(model, nodes, names)
        return PassResult(model, self.folded > before)

    def _foldable(self, graph: ir.Graph) -> list[ir.Node]:
        known: set[ir.Value] = {v for v in graph.initializers.values() if not v.is_graph_input()}
        found = []
        for node in graph:
            if node.op_type in RANDOM or node.op_type in self.keep or _has_graph(node):
                continue
            if all(value is None or value in known for value in node.inputs) and _sizes_are_sane(node):
                found.append(node)
                known.update(node.outputs)
        return found


def _has_graph(node: ir.Node) -> bool:
    """Control flow is no matter of folding."""
    return any(item.type in _GRAPHS for item in node.attributes.values())


def _sizes_are_sane(node: ir.Node) -> bool:
    """Whether the results' sizes are known and modest beside what goes in, or small."""
    for out in node.outputs:
        sizes = static_shape(out)
        if sizes is None:
            if node.op_type in _GROWING:
                return False
            continue
        width = 8 if out.dtype is None else max(1, math.ceil(out.dtype.itemsize))
        if node.op_type in _GROWING:
            check_size(node, sizes, width)
        given = sum(v.const_value.size for v in node.inputs if v is not None and v.const_value is not None)
        if math.prod(sizes) > max(_SMALL, 4 * given) and node.op_type not in _GROWING:
            return False
    return True


def _compute(model: ir.Model, nodes: list[ir.Node], names: Names) -> int:
    """Evaluate `nodes` and put the results that others read into the graph; how many nodes went."""
    inside = set(nodes)
    wanted = [out for node in nodes for out in node.outputs if _read_outside(out, inside)]
    opset = model.opset_imports.get("", OPSET)
    values = evaluate(nodes, wanted, opset)
    graph, folded = model.graph, 0
    for node in reversed(nodes):
        if all(out in values or not (out.uses() or out.is_graph_output()) for out in node.outputs):
            build = builder_for(node, names)
            fresh = [build.const(values[out]) if out in values else None for out in node.outputs]
            replace(graph, node, build, fresh)
            folded += 1
    return folded


def _read_outside(value: ir.Value, inside: set[ir.Node]) -> bool:
    return value.is_graph_output() or any(use.node not in inside for use in value.uses())
