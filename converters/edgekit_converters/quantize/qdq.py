"""Writing the QDQ graph: the assignment as QuantizeLinear/DequantizeLinear pairs around float ops.

Every integer op reads its float inputs from DequantizeLinear and its output (or that of the Relu or
Clip merged into it) goes to one QuantizeLinear. Weights become int8 initializers, symmetric within
[-127, 127], per channel where the rules say so; biases int32 at input scale times weight scale, or
stay float. Names of graph inputs and outputs are kept. ONNX operator specification, opset 21.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.rules import OpRule, Rules
from edgekit_converters.quantize import correct, grids
from edgekit_converters.quantize.assign import (
    Assignment,
    Ranges,
    activation_type,
    assign,
    key,
    kind_of,
)
from edgekit_converters.quantize.graphs import clone, constant, finite_constant, remove_unused, store
from edgekit_converters.quantize.grids import Grid
from edgekit_converters.quantize.roles import array, roles

Memo = dict[tuple[int, int | None, bytes], tuple[Any, Any]]
"""Rounded weights, by tensor, axis and scales."""


def quantize(
    model: ir.Model,
    ranges: Ranges,
    rules: Rules,
    *,
    precision: str,
    overrides: Mapping[str, str] | None = None,
    means: Mapping[str, Any] | None = None,
    finer: bool = False,
) -> ir.Model:
    """A QDQ copy of the float `model`.

    Args:
        model: canonical, legalised for the target.
        ranges: (low, high) by tensor name; ops with an unknown range stay float.
        rules: the target's.
        precision: ``int8`` or ``int16x8``.
        overrides: activation type, or ``float32``, by first output of a node.
        means: mean per channel by tensor name; with them biases are corrected, see `correct`.
        finer: take the last of several rules for an op, which is the finer one.
    """
    copy = clone(model)
    kind = activation_type(rules, precision)
    write(copy.graph, assign(copy.graph, ranges, rules, kind, overrides, finer=finer), rules, means)
    return copy


def write(
    graph: ir.Graph,
    assignment: Assignment,
    rules: Rules,
    means: Mapping[str, Any] | None = None,
    memo: Memo | None = None,
) -> None:
    """Change `graph` into its QDQ form, in place; see `quantize`.

    With a `memo`, weights that were rounded for another form of the same graph are not rounded again.
    """
    writer = _Writer(graph, assignment, rules, means or {}, {} if memo is None else memo)
    nodes = list(graph)
    for name in assignment.grids:
        writer.quantize_tensor(name)
    for node in nodes:
        rule = assignment.ops.get(key_before(node, writer))
        if rule is not None:
            writer.quantize_inputs(node, rule)
    remove_unused(graph)


def key_before(node: ir.Node, writer: _Writer) -> str:
    """The node's name in the assignment: graph outputs were renamed since."""
    return writer.renamed.get(key(node), key(node))


class _Writer:
    def __init__(
        self, graph: ir.Graph, assignment: Assignment, rules: Rules, means: Mapping[str, Any], memo: Memo
    ) -> None:
        self._graph = graph
        self._assignment = assignment
        self._rules = rules
        self._means = means
        self._memo = memo
        self._values = {str(item.name): item for item in graph.inputs}
        self._values |= {str(item.name): item for node in graph for item in node.outputs}
        self._constants: dict[tuple[str, bytes, str], ir.Value] = {}
        self._taken = set(self._values) | set(graph.initializers)
        self._places: dict[str, ir.Value] = {}
        self.renamed: dict[str, str] = {}

    def quantize_tensor(self, name: str) -> None:
        """Put a pair behind the tensor, and let its readers read the pair's result."""
        value, grid = self._values[name], self._assignment.grids[name]
        maker = value.producer()
        made = maker is not None and key_before(maker, self) in self._assignment.ops
        readers = [(node, i) for node, i in value.uses() if made or self._reads_integers(node, i)]
        ends = value.is_graph_output() and made
        nodes, result = self._pair(value, name, grid)
        self._places[name] = result
        if maker is None:
            self._graph.insert_before(self._graph[0], nodes)
        else:
            maker.append(nodes)
        for node, index in readers:
            node.replace_input_with(index, result)
        if ends:
            value.name = self._name(f"{name}_raw")
            self.renamed[value.name] = name
            result.name = name
            for index, item in enumerate(self._graph.outputs):
                if item is value:
                    self._graph.outputs[index] = result

    def quantize_inputs(self, node: ir.Node, rule: OpRule) -> None:
        """Weights, biases, constant inputs, and inputs that go over to another grid."""
        found, name = roles(node), key_before(node, self)
        for index in found.data:
            value = node.inputs[index]
            assert value is not None
            grid = self._assignment.entries.get((name, index))
            if array(value) is not None:
                self._constant_input(node, index, self._constant_grid(node, value, rule))
            elif grid is not None:
                pair, result = self._pair(value, f"{name}_entry{index}", grid)
                node.prepend(pair)
                node.replace_input_with(index, result)
        if found.weight is not None and rule.weights:
            self._weight(node, rule)
        if node.op_type == "AveragePool":
            # They are all one; onnxruntime's QLinearAveragePool does not know the attribute.
            node.attributes.pop("dilations", None)

    def _reads_integers(self, node: ir.Node, index: int) -> bool:
        return key_before(node, self) in self._assignment.ops and index in roles(node).data

    def _constant_grid(self, node: ir.Node, value: ir.Value, rule: OpRule) -> Grid:
        if rule.same_scale:
            outputs = (self.renamed.get(str(item.name), str(item.name)) for item in node.outputs)
            shared = next(
                (self._assignment.grids[item] for item in outputs if item in self._assignment.grids), None
            )
            if shared is not None:
                return shared
        data, kind = constant(value), kind_of(rule)
        low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 0.0)
        return kind.grid(low, high)

    def _constant_input(self, node: ir.Node, index: int, grid: Grid) -> None:
        value = node.inputs[index]
        assert value is not None
        whole = grids.quantize(constant(value), grid.scale, grid.type, zero_point=grid.zero_point)
        self._replace(node, index, whole, np.float32(grid.scale), grid.type, grid.zero_point, None)

    def _weight(self, node: ir.Node, rule: OpRule) -> None:
        found = roles(node)
        assert found.weight is not None
        axis = found.axis if rule.weights_per_channel else None
        weight = finite_constant(node, found.weight)
        kind = rule.weights[0] if rule.weights[0] in ("int8", "int16") else "int8"
        scales = grids.weight_scales(weight, axis, kind, bits=rule.weight_bits)
        bias = finite_constant(node, found.bias) if found.bias is not None else None
        scale = self._input_scale(node, found.data[0])
        whole_bias = bias is not None and bias.ndim == 1 and self._rules.bias == "int32"
        if whole_bias:
            scales = grids.room_for_bias(scales, bias, scale)
        if rule.power_of_two:
            scales = grids.powers_of_two(scales)
        limit = grids.largest(kind, rule.weight_bits)
        whole = self._rounded(node.inputs[found.weight], weight, scales, axis, (kind, limit))
        shift = self._shift(node, weight, whole, scales, axis, bias)
        self._replace(node, found.weight, whole, scales, kind, 0, axis)
        if shift is not None:
            value = store(self._graph, self._name(f"{key(node)}_corrected"), shift.astype(np.float32))
            node.resize_inputs(3)
            node.replace_input_with(2, value)
        if self._rules.bias == "int32" and (whole_bias or shift is not None):
            steps = (np.float32(scale) * scales).astype(np.float32)
            whole = grids.quantize(bias if shift is None else shift, steps, "int32", axis=0)
            self._replace(node, 2, whole, steps, "int32", 0, 0 if np.ndim(steps) else None)

    def _rounded(
        self, value: ir.Value | None, weight: Any, scales: Any, axis: int | None, type_: tuple[str, int]
    ) -> Any:
        """The weight's integers. The memo holds the tensor too, so that its identity stays its own."""
        tensor = array(value)
        place = (id(tensor), axis, np.asarray(scales).tobytes() + type_[0].encode())
        if place not in self._memo:
            kind, limit = type_
            whole = np.clip(grids.quantize(weight, scales, kind, axis=axis), -limit, limit)
            self._memo[place] = (tensor, whole)
        return self._memo[place][1]

    def _shift(self, node: ir.Node, weight: Any, whole: Any, scales: Any, axis: int | None, bias: Any) -> Any:
        """The corrected bias, or None when there is nothing to correct it with."""
        if bias is not None and bias.ndim != 1:
            return None
        error = grids.dequantize(whole, scales, axis=axis) - weight
        shift = correct.bias_shift(node, error, self._means.get(self._reads(node)))
        return shift if shift is None or bias is None else shift + bias

    def _reads(self, node: ir.Node) -> str:
        """Name of the float tensor behind the pair that `node` reads first."""
        return next((name for name, place in self._places.items() if place is node.inputs[0]), "")

    def _input_scale(self, node: ir.Node, index: int) -> float:
        value = node.inputs[index]
        assert value is not None
        pair = value.producer()
        assert pair is not None
        assert pair.op_type == "DequantizeLinear"
        return float(constant(pair.inputs[1]))

    def _replace(
        self, node: ir.Node, index: int, whole: Any, scale: Any, kind: str, zero: int, axis: int | None
    ) -> None:
        """Let `node` read integers `whole` through a DequantizeLinear of their own."""
        value = node.inputs[index]
        assert value is not None
        name = str(value.name)
        place = (name, np.asarray(scale).tobytes(), kind)
        if place not in self._constants:
            stored = self._store(f"{name}_quantized", whole)
            zeros = np.full(np.shape(scale), zero, grids.storage(kind))
            inputs = [stored, self._store(f"{name}_scale", scale), self._store(f"{name}_zero_point", zeros)]
            back = self._node("DequantizeLinear", inputs, f"{name}_dequantized", axis)
            _describe(back.outputs[0], ir.DataType.FLOAT, value.shape)
            self._graph.insert_before(self._graph[0], [back])
            self._constants[place] = back.outputs[0]
        node.replace_input_with(index, self._constants[place])

    def _pair(self, value: ir.Value, name: str, grid: Grid) -> tuple[list[ir.Node], ir.Value]:
        scale = self._store(f"{name}_scale", np.float32(grid.scale))
        zero = self._store(f"{name}_zero_point", np.asarray(grid.zero_point, grids.storage(grid.type)))
        there = self._node("QuantizeLinear", [value, scale, zero], f"{name}_quantized")
        back = self._node("DequantizeLinear", [there.outputs[0], scale, zero], f"{name}_dequantized")
        _describe(there.outputs[0], ir.DataType[grid.type.upper()], value.shape)
        _describe(back.outputs[0], ir.DataType.FLOAT, value.shape)
        return [there, back], back.outputs[0]

    def _node(self, kind: str, inputs: list[ir.Value], name: str, axis: int | None = None) -> ir.Node:
        attributes = {} if axis is None else {"axis": ir.AttrInt64("axis", axis)}
        output = ir.Value(name=self._name(name))
        return ir.Node("", kind, inputs, attributes, outputs=[output], name=output.name)

    def _store(self, name: str, data: Any) -> ir.Value:
        return store(self._graph, self._name(name), np.asarray(data))

    def _name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


def _describe(value: ir.Value, kind: ir.DataType, shape: ir.Shape | None) -> None:
    value.type = ir.TensorType(kind)
    value.shape = shape
