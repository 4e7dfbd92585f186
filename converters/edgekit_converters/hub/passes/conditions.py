"""The conditions that passes declare, each with the offender it finds."""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.hub.build import OPSET
from edgekit_converters.hub.nodes import constant, label
from edgekit_converters.hub.passes.base import Condition


def _opset(model: ir.Model) -> str | None:
    found = model.opset_imports.get("", OPSET)
    return None if found == OPSET else f"opset {found}"


def _functions(model: ir.Model) -> str | None:
    return next((f"function {key[1]!r}" for key in model.functions), None)


def _unread(model: ir.Model) -> str | None:
    for node in model.graph:
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            return label(node)
    return None


def _kinds(*kinds: str) -> Condition:
    def offender(model: ir.Model) -> str | None:
        return next((label(n) for n in model.graph if n.op_type in kinds and not n.domain), None)

    return Condition(f"no {', '.join(kinds)} nodes", offender)


def _copies(model: ir.Model) -> str | None:
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "Identity" else None
        if source is not None and not (
            node.outputs[0].is_graph_output() and (source.producer() is None or source.is_graph_output())
        ):
            return label(node)
    return None


def _order(model: ir.Model) -> str | None:
    seen: set[ir.Node] = set()
    for node in model.graph:
        for value in node.inputs:
            maker = None if value is None else value.producer()
            if maker is not None and maker.graph is model.graph and maker not in seen:
                return label(node)
        seen.add(node)
    return None


def _names(model: ir.Model) -> str | None:
    seen: set[str] = set()
    graph = model.graph
    values = [*graph.inputs, *(v for v in graph.initializers.values() if not v.is_graph_input())]
    for value in (*values, *(out for node in graph for out in node.outputs if out.name)):
        if not value.name or value.name in seen:
            return f"value {value.name!r}"
        seen.add(value.name)
    return None


def _constant_nodes(model: ir.Model) -> str | None:
    for node in model.graph:
        if node.op_type in ("Shape", "Size") and not node.domain and constant(node.inputs[0]) is not None:
            return label(node)
    return None


AT_OPSET = Condition(f"opset {OPSET}", _opset)
NO_FUNCTIONS = Condition("no local functions", _functions)
NOTHING_UNREAD = Condition("that every node is read", _unread)
NO_CONSTANT_NODES = _kinds("Constant")
NO_DROPOUT = _kinds("Dropout")
NO_CONTROL_FLOW = _kinds("If", "Loop", "Scan", "SequenceMap")
NO_COPIES = Condition("Identity only where an output needs a name of its own", _copies)
IN_ORDER = Condition("that every node comes after what it reads", _order)
UNIQUE_NAMES = Condition("that every value has a name of its own", _names)
SHAPES_OF_CONSTANTS_KNOWN = Condition("no Shape of a constant", _constant_nodes)
