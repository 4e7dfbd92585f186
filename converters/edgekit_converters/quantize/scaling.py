"""Moving a factor per channel from one layer to the next without changing what the graph computes.

Between a producer (weighted op, or a layer normalisation) and its readers (weighted ops) lie only ops
through which a positive factor passes: Relu, LeakyRelu, pooling. Dividing the producer's channels and
multiplying the readers' input channels by the same factor leaves every other tensor as it was.
`equalize` and `smooth` choose the factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize.graphs import constant, store
from edgekit_converters.quantize.roles import WEIGHTED, array, integer, number

_PASSING = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True, kw_only=True)
class Site:
    """`tensor` is what the readers read; `between` all tensors that the factor changes, it included."""

    producer: ir.Node
    readers: tuple[ir.Node, ...]
    tensor: ir.Value
    between: tuple[str, ...]


def sites(graph: ir.Graph) -> list[Site]:
    """All places where a factor can move, in the graph's order."""
    found = []
    for node in graph:
        if _scalable(node):
            site = _site(node)
            if site is not None:
                found.append(site)
    return found


def apply(graph: ir.Graph, site: Site, factor: Any) -> None:
    """Divide the producer's output channels by `factor`, multiply the readers' input channels by it."""
    producer = site.producer
    for index in range(1, min(3, len(producer.inputs))):
        value = producer.inputs[index]
        if value is None:
            continue
        axis = _out_axis(producer) if index == 1 else 0
        _multiply(graph, producer, index, 1 / _spread(factor, constant(value), axis))
    for reader in site.readers:
        weight = constant(reader.inputs[1])
        _multiply(graph, reader, 1, _input_factor(reader, weight, factor))


def input_peaks(node: ir.Node, channels: int) -> Any:
    """Largest magnitude of a reader's weight per input channel."""
    weight = np.abs(constant(node.inputs[1]))
    if node.op_type == "Conv":
        groups = integer(node, "group", 1)
        peaks = weight.reshape(groups, -1, *weight.shape[1:]).max(axis=(1, *range(3, weight.ndim + 1)))
        return peaks.reshape(-1)
    axis = 1 if node.op_type == "Gemm" and integer(node, "transB", 0) else 0
    return weight.max(axis=1 - axis)


def depthwise(node: ir.Node) -> bool:
    """A convolution with one input channel a group: its scales per channel take any factor freely."""
    return node.op_type == "Conv" and constant(node.inputs[1]).shape[1] == 1


def channels(node: ir.Node) -> int:
    """Input channels of a reader."""
    shape = constant(node.inputs[1]).shape
    if node.op_type == "Conv":
        return int(shape[1]) * integer(node, "group", 1)
    return int(shape[1] if node.op_type == "Gemm" and integer(node, "transB", 0) else shape[0])


def _site(node: ir.Node) -> Site | None:
    value, between = node.outputs[0], [str(node.outputs[0].name)]
    while True:
        readers = value.consumers()
        if value.is_graph_output() or not readers:
            return None
        if len(readers) == 1 and readers[0].op_type in _PASSING:
            value = readers[0].outputs[0]
            between.append(str(value.name))
            continue
        break
    if not all(_reads_first(reader, value) for reader in readers):
        return None
    if len({channels(reader) for reader in readers}) != 1 or channels(readers[0]) != _made(node):
        return None
    return Site(producer=node, readers=tuple(dict.fromkeys(readers)), tensor=value, between=tuple(between))


def _scalable(node: ir.Node) -> bool:
    if node.op_type == "LayerNormalization":
        return all(array(item) is not None for item in node.inputs[1:]) and len(node.outputs) == 1
    return node.op_type in ("Conv", "Gemm", "MatMul") and _constant_weights(node)


def _reads_first(node: ir.Node, value: ir.Value) -> bool:
    fits = node.op_type in WEIGHTED and node.op_type != "ConvTranspose" and _constant_weights(node)
    return fits and node.inputs[0] is value and all(item is not value for item in node.inputs[1:])


def _constant_weights(node: ir.Node) -> bool:
    given = [item for item in node.inputs[1:] if item is not None]
    if not given or any(array(item) is None for item in given):
        return False
    if number(node, "alpha", 1) != 1 or number(node, "beta", 1) != 1 or integer(node, "transA", 0):
        return False
    if len(given) > 1 and constant(given[1]).ndim != 1:
        return False
    return node.op_type == "Conv" or constant(given[0]).ndim == 2


def _made(node: ir.Node) -> int:
    """Output channels of a producer."""
    shape = constant(node.inputs[1]).shape
    return int(shape[_out_axis(node)])


def _out_axis(node: ir.Node) -> int:
    if node.op_type in ("Conv", "LayerNormalization"):
        return 0
    return 0 if node.op_type == "Gemm" and integer(node, "transB", 0) else 1


def _input_factor(node: ir.Node, weight: Any, factor: Any) -> Any:
    if node.op_type == "Conv":
        groups = integer(node, "group", 1)
        # (outputs, inputs of a group, …): output o belongs to group o // (outputs / groups).
        per_group = np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        return per_group.reshape(*per_group.shape, *(1,) * (weight.ndim - 2))
    axis = 1 if node.op_type == "Gemm" and integer(node, "transB", 0) else 0
    return _spread(factor, weight, axis)


def _spread(factor: Any, like: Any, axis: int) -> Any:
    return factor.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


def _multiply(graph: ir.Graph, node: ir.Node, index: int, factor: Any) -> None:
    value = node.inputs[index]
    assert value is not None
    scaled = (constant(value).astype(np.float64) * factor).astype(np.float32)
    node.replace_input_with(index, store(graph, f"{value.name}_scaled", scaled))
