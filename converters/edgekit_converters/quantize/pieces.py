"""One integer op at a time: every quantized op of a QDQ graph as a model of its own.

A lowering is held to the emulation op by op: each piece is lowered alone, fed with the integers that
the emulation of the whole graph has there, and may differ by one step. End to end errors accumulate,
also between two kernel sets of one runtime, and prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgekit_converters.quantize.roles import ACTIVATIONS

_PLUMBING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """`model` reads the integer tensors `inputs` and gives `outputs`, all by their names in the whole."""

    name: str
    op: str
    model: ir.Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def pieces(model: ir.Model) -> Iterator[Piece]:
    """Every op between DequantizeLinear and QuantizeLinear, in the graph's order."""
    for node in model.graph:
        if node.op_type in _PLUMBING or _is_tail(node):
            continue
        ends = _ends(node)
        backs = [value.producer() for value in node.inputs if value is not None]
        starts = [
            item.inputs[0]
            for item in backs
            if item is not None and item.op_type == "DequantizeLinear" and _changes(item)
        ]
        inputs = tuple(dict.fromkeys(str(value.name) for value in starts if value is not None))
        if ends and inputs:
            outputs = tuple(str(item.name) for item in ends)
            yield Piece(
                name=str(node.name or node.outputs[0].name),
                op=node.op_type,
                model=cut(model, inputs, outputs),
                inputs=inputs,
                outputs=outputs,
            )


def cut(model: ir.Model, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> ir.Model:
    """The part of `model` that computes `outputs` from `inputs`."""
    graph = model.graph.clone()
    made = {str(item.name): item for node in graph for item in node.outputs}
    made |= {str(item.name): item for item in graph.inputs}
    ends = [made[name] for name in outputs]
    fresh = []
    for name in inputs:
        old = made[name]
        value = ir.Value(name=f"{name}_in", type=old.type, shape=old.shape)
        for reader, index in old.uses():
            reader.replace_input_with(index, value)
        fresh.append(value)
    graph.outputs.clear()
    graph.outputs.extend(ends)
    needed = _needed(ends)
    for node in reversed(list(graph)):
        if node not in needed:
            graph.remove(node, safe=True)
    graph.inputs.clear()
    graph.inputs.extend(fresh)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
    for name, value in zip(inputs, fresh, strict=True):
        value.name = name
    return ir.Model(graph, ir_version=model.ir_version)


def _needed(ends: list[ir.Value]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    open_ = [item.producer() for item in ends]
    while open_:
        node = open_.pop()
        if node is None or node in found:
            continue
        found.add(node)
        open_ += [value.producer() for value in node.inputs if value is not None]
    return found


def _is_tail(node: ir.Node) -> bool:
    """A Relu or Clip merged into the op before it."""
    value = node.inputs[0] if node.inputs else None
    maker = None if value is None else value.producer()
    return node.op_type in ACTIVATIONS and maker is not None and maker.op_type not in _PLUMBING


def _ends(node: ir.Node) -> list[ir.Value]:
    """The quantized outputs of an op, its merged activation passed."""
    found = []
    for output in node.outputs:
        readers = output.consumers()
        if len(readers) == 1 and readers[0].op_type in ACTIVATIONS:
            readers = readers[0].outputs[0].consumers()
        found += [item.outputs[0] for item in readers if item.op_type == "QuantizeLinear"][:1]
    return found


def _changes(node: ir.Node) -> bool:
    """Whether a DequantizeLinear reads a tensor that depends on the input, and no constant."""
    value = node.inputs[0]
    return value is not None and (value.producer() is not None or value.is_graph_input())
