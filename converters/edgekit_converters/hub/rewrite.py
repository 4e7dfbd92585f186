"""Putting what a rule built into the graph, in the place of a node.

Outputs of the graph keep their names, whatever they are replaced by.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit_converters.hub.build import Builder, Names, Rule
from edgekit_converters.hub.nodes import label

# What a rule runs into when sizes or attributes of a damaged model make no sense together.
_SENSELESS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


def applied(rule: Rule, node: ir.Node, build: Builder) -> Sequence[ir.Value | None] | None:
    """The rule's answer as one value an output; None when the rule does not apply.

    Raises:
        SourceError: the node's attributes, sizes and types contradict each other.
    """
    try:
        result = rule(node, build)
    except _SENSELESS as error:
        raise SourceError(
            f"{label(node)}: its attributes and sizes make no sense together ({error})",
            remedy="the file is damaged; export the model again",
            code="corrupt_source",
        ) from error
    return [result] if isinstance(result, ir.Value) else result


def replace(graph: ir.Graph, node: ir.Node, built: Builder, values: Sequence[ir.Value | None]) -> None:
    """Put `built` before `node`, let `values` take over its outputs, and remove it.

    Raises:
        SourceError: an output that is read has no counterpart.
    """
    for index, out in enumerate(node.outputs):
        missing = index >= len(values) or values[index] is None
        if missing and (out.uses() or out.is_graph_output()):
            raise SourceError(f"{label(node)}: output {index} is not supported", code="unsupported_attribute")
    for value in built.constants:
        graph.register_initializer(value)
    graph.insert_before(node, built.nodes)
    for old, new in zip(node.outputs, values, strict=False):
        if new is not None:
            take_over(graph, node, old, new)
    graph.remove(node, safe=True)


def take_over(graph: ir.Graph, before: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old` read `new`; an output's name goes over to it (or to a copy of it)."""
    _keep_knowledge(old, new)
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    name, old.name = old.name, f"{old.name}__replaced"
    if new.producer() is None or new.is_graph_output():
        copy = ir.node("Identity", [new])
        copy.outputs[0].type, copy.outputs[0].shape = new.type, new.shape
        graph.insert_before(before, copy)
        new = copy.outputs[0]
    new.name = name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _keep_knowledge(old: ir.Value, new: ir.Value) -> None:
    """A size that was known before stays known."""
    if new.is_graph_input() or new.is_initializer():
        return
    if new.type is None:
        new.type = old.type
    if old.shape is None:
        return
    if new.shape is None or len(new.shape) != len(old.shape):
        new.shape = old.shape
        return
    sizes = [b if isinstance(b, int) else a for a, b in zip(old.shape, new.shape, strict=True)]
    new.shape = ir.Shape(sizes)


def remove_copies(graph: ir.Graph) -> int:
    """Remove Identity nodes, but for those that give an output its own name; the number removed."""
    count = 0
    for node in list(graph):
        if node.op_type != "Identity" or node.domain:
            continue
        source, copy = node.inputs[0], node.outputs[0]
        if source is None:
            continue
        if copy.is_graph_output() and (source.producer() is None or source.is_graph_output()):
            continue
        if copy.is_graph_output():
            name, copy.name = copy.name, f"{copy.name}__copy"
            source.name = name
        _keep_knowledge(copy, source)
        copy.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        count += 1
    return count


def remove_unread(graph: ir.Graph) -> int:
    """Remove nodes and initializers nobody reads, from the back; the number of nodes removed."""
    count = 0
    for node in reversed(list(graph)):
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            graph.remove(node, safe=True)
            count += 1
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return count


def builder_for(node: ir.Node, names: Names) -> Builder:
    """A builder whose names begin with what the node computes."""
    return Builder(names, hint=node.outputs[0].name or node.op_type)
