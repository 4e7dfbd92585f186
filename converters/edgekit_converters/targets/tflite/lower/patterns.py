"""Integer patterns of a QDQ graph: DequantizeLinear → op (→ activation) → QuantizeLinear.

`find` names the ops whose float inputs and outputs are all quantized as their kernel wants it; `lower`
runs the op's own function with the integers in place of the floats. An op that turns out to have no
integer kernel for its attributes is lowered in float, with DEQUANTIZE and QUANTIZE around it.

Specification: LiteRT 8-bit quantization specification (int8 activations, weights symmetric and per
channel, int32 bias at the product of the scales) and its 16x8 form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower import activation
from edgekit_converters.targets.tflite.lower.context import Context, Pattern
from edgekit_converters.targets.tflite.lower.registry import Quantized, Rule, rules
from edgekit_converters.targets.tflite.lower.tensors import Quant, Spec

_D = ir.DataType
_TYPES = {"INT8": _D.INT8, "INT16": _D.INT16, "UINT8": _D.UINT8}
_WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Ops with a weight as second input, and the axis of its output channels there."""
_NUMBERS = {"Clip": (1, 2), "Pad": (2,)}
"""Inputs that are single numbers: the op's function puts them on the grid."""
_FUSING = frozenset({*_WEIGHTED, "Add", "Sub", "Mul"})
FIXED: Mapping[tuple[str, ir.DataType], tuple[float, int]] = {
    ("Softmax", _D.INT8): (1 / 256, -128),
    ("Sigmoid", _D.INT8): (1 / 256, -128),
    ("Tanh", _D.INT8): (1 / 128, 0),
    ("LogSoftmax", _D.INT8): (16 / 256, 127),
    ("LpNormalization", _D.INT8): (1 / 128, 0),
    ("Softmax", _D.INT16): (1 / 32768, 0),
    ("Sigmoid", _D.INT16): (1 / 32768, 0),
    ("Tanh", _D.INT16): (1 / 32768, 0),
}
"""Scale and zero point that the runtime's kernels insist on."""


@dataclass(frozen=True)
class Match:
    """An op whose float inputs and outputs are all quantized; `tail` is the activation to fuse."""

    inputs: Mapping[ir.Value, ir.Value]
    outputs: Mapping[ir.Value, ir.Value]
    writers: tuple[ir.Node, ...]
    tail: ir.Node | None
    fused: int


def find(ctx: Context, graph: ir.Graph) -> Mapping[ir.Node, Match]:
    """The ops of `graph` that run on integers; scales of all quantized values go into ``ctx.quants``."""
    for node in graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _note(ctx, node)
    found = {}
    for node in graph:
        rule = rules().get(node.op_type)
        if rule is not None and rule.quantized is not Quantized.NONE:
            match = _match(ctx, node, rule)
            if match is not None:
                found[node] = match
    return found


def grid(node: ir.Node) -> Quant | None:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear where they are constants."""
    scale, zero = nodes.constant(nodes.operand(node, 1)), nodes.constant(nodes.operand(node, 2))
    if scale is None or (zero is None and nodes.operand(node, 2) is not None):
        return None
    if scale.dtype != np.float32 or scale.ndim > 1 or nodes.attr_int(node, "block_size", 0):
        return None
    zeros = np.zeros(scale.size, np.int64) if zero is None else zero.reshape(-1).astype(np.int64)
    rank = nodes.rank(node.inputs[0])
    axis = 0 if scale.size == 1 or rank is None else nodes.axis_of(node, rank, default=1)
    return Quant(tuple(map(float, scale.reshape(-1))), tuple(map(int, zeros)), axis)


def _note(ctx: Context, node: ir.Node) -> None:
    quant = grid(node)
    value = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    # A constant that two readers scale differently has no scale of its own.
    if quant is not None and value is not None and ctx.quants.setdefault(value, quant) != quant:
        ctx.unclear.add(value)


def _match(ctx: Context, node: ir.Node, rule: Rule) -> Match | None:
    inputs = dict(_inputs(ctx, node))
    if not inputs or any(item is None for item in inputs.values()):
        return None
    tail = activation.follower(node, saturated=True) if node.op_type in _FUSING else None
    ends = list(tail.outputs) if tail is not None else [item for item in node.outputs if item.name]
    writers = [_writer(ctx, value) for value in ends]
    if not writers or any(item is None for item in writers):
        return None
    known = tuple(item for item in writers if item is not None)
    sure = {value: item for value, item in inputs.items() if item is not None}
    outputs = {value: writer.outputs[0] for value, writer in zip(ends, known, strict=True)}
    fused = _fusable(ctx, tail, outputs)
    if fused is None or not _kernel_takes(ctx, node, rule, sure, outputs):
        return None
    return Match(sure, outputs, known, tail, fused)


def _inputs(ctx: Context, node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value | None]]:
    """Each float input with the integers behind it (None where there are none)."""
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype is not _D.FLOAT:
            continue
        if index in _NUMBERS.get(node.op_type, ()) and value.const_value is not None:
            continue
        producer = value.producer()
        if producer is None or producer.op_type != "DequantizeLinear":
            yield value, None
            continue
        integers = producer.inputs[0]
        known = integers is not None and integers in ctx.quants and integers not in ctx.unclear
        maker = integers.producer() if integers is not None else None
        plain = maker is None or maker.op_type == "QuantizeLinear"
        yield value, integers if known and plain else None


def _writer(ctx: Context, value: ir.Value) -> ir.Node | None:
    """The QuantizeLinear that alone reads `value`."""
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].idx != 0:
        return None
    node = uses[0].node
    known = node.op_type == "QuantizeLinear" and node.outputs[0] in ctx.quants
    return node if known else None


def _fusable(ctx: Context, tail: ir.Node | None, outputs: Mapping[ir.Value, ir.Value]) -> int | None:
    """The activation for `tail`; NONE where the output's type saturates just so; None when neither."""
    if tail is None:
        return activation.NONE
    kind = activation.kind(tail)
    if kind is not None:
        return kind
    bounds = activation.bounds(tail)
    target = outputs[tail.outputs[0]]
    quant = ctx.quants[target]
    if bounds is None or quant.per_channel:
        return None
    limits = np.iinfo(ctx.dtype(target).numpy())
    low, high = ((end - quant.zero_point[0]) * quant.scale[0] for end in (limits.min, limits.max))
    slack = quant.scale[0] * 0.5
    return activation.NONE if low >= bounds[0] - slack and high <= bounds[1] + slack else None


def _kernel_takes(
    ctx: Context,
    node: ir.Node,
    rule: Rule,
    inputs: Mapping[ir.Value, ir.Value],
    outputs: Mapping[ir.Value, ir.Value],
) -> bool:
    allowed = {_TYPES[name] for name in rule.dtypes}
    kinds = {ctx.dtype(target) for target in outputs.values()}
    if len(kinds) != 1 or not kinds <= allowed:
        return False
    kind = kinds.pop()
    weighted = node.op_type in _WEIGHTED and _is_weight(inputs, node)
    for index, value in enumerate(node.inputs):
        integers = None if value is None else inputs.get(value)
        if integers is None:
            continue
        if weighted and index >= 1:
            if index == 1 and not _weight_is_fit(ctx, node, integers):
                return False
        elif ctx.dtype(integers) is not kind or ctx.quants[integers].per_channel:
            return False
    scales = [ctx.quants[target] for target in outputs.values()]
    if any(item.per_channel for item in scales):
        return False
    if kind is _D.INT16 and any(item.zero_point != (0,) for item in scales):
        return False
    return rule.quantized is not Quantized.FIXED or _is_fixed(node, kind, scales[0])


def _is_weight(inputs: Mapping[ir.Value, ir.Value], node: ir.Node) -> bool:
    value = nodes.operand(node, 1)
    return value is not None and value in inputs and inputs[value].const_value is not None


def _weight_is_fit(ctx: Context, node: ir.Node, integers: ir.Value) -> bool:
    """int8 or int4, symmetric, one scale or one for each output channel."""
    quant = ctx.quants[integers]
    axis = _WEIGHTED[node.op_type]
    if node.op_type == "Gemm" and nodes.attr_int(node, "transB", 0):
        axis = 0
    fits = ctx.dtype(integers) in (_D.INT8, _D.INT4) and not any(quant.zero_point)
    return fits and (not quant.per_channel or quant.axis == axis)


def _is_fixed(node: ir.Node, kind: ir.DataType, quant: Quant) -> bool:
    scale, zero = FIXED.get((node.op_type, kind), (0.0, 0))
    return isclose(scale, quant.scale[0], rel_tol=1e-6) and quant.zero_point == (zero,)


def lower(ctx: Context, node: ir.Node, rule: Rule, match: Match) -> None:
    """Lower `node` on the integers of `match`, or in float where its kernel does not take them."""
    mark = ctx.mark()
    try:
        _lower_integers(ctx, node, rule, match)
    except Refusal:
        ctx.back_to(mark)
        ctx.pattern = None
        rule.lower(ctx, node)


def _lower_integers(ctx: Context, node: ir.Node, rule: Rule, match: Match) -> None:
    quants = {value: ctx.quants[target] for value, target in match.outputs.items()}
    inputs = dict(match.inputs)
    first = len(ctx.graph.operators)
    if rule.quantized is Quantized.SAME:
        wanted = next(iter(quants.values()))
        inputs = {value: _at_scale(ctx, item, wanted) for value, item in inputs.items()}
    result = match.tail.outputs[0] if match.tail is not None else node.outputs[0]
    ctx.pattern = Pattern(inputs, dict(match.outputs), quants, match.fused, result)
    rule.lower(ctx, node)
    ctx.pattern = None
    if ctx.touches_floats(first):
        raise Refusal(f"{node.op_type} is no integer op as it stands", code="unsupported_type")
    ctx.done.update(match.writers)
    if match.tail is not None:
        ctx.done.add(match.tail)


def _at_scale(ctx: Context, value: ir.Value, wanted: Quant) -> ir.Value:
    """`value` at the scale `wanted`; a QUANTIZE from integers to integers where it has another."""
    own = ctx.quants[value]
    if own.scale == wanted.scale and own.zero_point == wanted.zero_point:
        return value
    moved = ir.Value(name=f"{value.name}_moved", shape=value.shape, type=value.type)
    ctx.quants[moved] = wanted
    tensor, perm = ctx.any_layout(value)
    ctx.set(moved, ctx.emit("QUANTIZE", [tensor], Spec(tensor.shape, tensor.dtype, wanted)), perm)
    return moved
