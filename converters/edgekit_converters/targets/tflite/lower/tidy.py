"""Reshapes that say nothing, taken out of a finished graph: each is a copy, and memory while it is made.

1. A RESHAPE of a RESHAPE reads what that one read.
2. A RESHAPE to the shape that its input has already vanishes.
3. Where the runtime's FULLY_CONNECTED takes an input of any rank (`flat_dense`), one before it vanishes.

Operators, tensors and constants that nobody reads any more go with them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit_converters.targets.tflite.lower.writer import Graph

_RESHAPE, _DENSE = schema.BuiltinOperator.RESHAPE, schema.BuiltinOperator.FULLY_CONNECTED


def tidy(graph: Graph, ports: Collection[int], *, flat_dense: bool = False) -> dict[int, int]:
    """Clean `graph` in place; gives where each tensor stands now. Those in `ports` are kept."""
    codes = {place: code for (code, _), place in graph.opcodes.items()}
    reshaped: dict[int, int] = {}
    same: dict[int, int] = {}
    for op in graph.operators:
        op.inputs = [same.get(int(index), int(index)) for index in op.inputs]
        if codes[op.opcodeIndex] != _RESHAPE:
            continue
        source, made = op.inputs[0], int(op.outputs[0])
        op.inputs[0] = reshaped[made] = source = reshaped.get(source, source)
        alike = _shape(graph.tensors[made]) == _shape(graph.tensors[source])
        if made not in ports and (alike or (flat_dense and _only_dense(graph, codes, made))):
            same[made] = source
    _drop(graph, codes, ports)
    return _packed(graph, ports)


def _only_dense(graph: Graph, codes: dict[int, int], index: int) -> bool:
    """Whether only dense layers read a tensor of two axes, as what they multiply."""
    readers = [op for op in graph.operators if index in [int(item) for item in op.inputs]]
    fine = all(codes[op.opcodeIndex] == _DENSE and _flattens(op, index) for op in readers)
    return bool(readers) and fine and len(graph.tensors[index].shape) == 2


def _flattens(op: Any, index: int) -> bool:
    return [int(item) for item in op.inputs].index(index) == 0 and not op.builtinOptions.keepNumDims


def _shape(tensor: Any) -> tuple[list[int], list[int]]:
    signature = tensor.shapeSignature
    return list(tensor.shape), [] if signature is None else list(signature)


def _drop(graph: Graph, codes: dict[int, int], ports: Collection[int]) -> None:
    """Without the RESHAPEs that nobody reads; readers stand behind what they read."""
    read = set(ports)
    kept = []
    for op in reversed(graph.operators):
        if codes[op.opcodeIndex] == _RESHAPE and int(op.outputs[0]) not in read:
            graph.counts["RESHAPE"] -= 1
            continue
        read |= {int(index) for index in op.inputs}
        kept.append(op)
    graph.operators[:] = reversed(kept)
    graph.counts = {name: count for name, count in graph.counts.items() if count}


def _packed(graph: Graph, ports: Collection[int]) -> dict[int, int]:
    """Without what is not used, numbered anew."""
    used = set(ports) | {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    place = {old: new for new, old in enumerate(sorted(used))}
    graph.tensors[:] = [graph.tensors[old] for old in sorted(used)]
    buffers = sorted({0} | {item.buffer for item in graph.tensors})
    at = {old: new for new, old in enumerate(buffers)}
    graph.buffers[:] = [graph.buffers[old] for old in buffers]
    for item in graph.tensors:
        item.buffer = at[item.buffer]
    for op in graph.operators:
        op.inputs = np.array([place.get(int(index), -1) for index in op.inputs], np.int32)
        op.outputs = np.array([place[int(index)] for index in op.outputs], np.int32)
    _renumber(graph)
    return place


def _renumber(graph: Graph) -> None:
    """Operator codes that are still used, in their order."""
    used = {op.opcodeIndex for op in graph.operators}
    kept = [(key, old) for key, old in graph.opcodes.items() if old in used]
    place = {old: new for new, (_, old) in enumerate(kept)}
    graph.opcodes = {key: place[old] for key, old in kept}
    for op in graph.operators:
        op.opcodeIndex = place[op.opcodeIndex]
