"""Lowering a whole model: inputs, nodes in order, outputs, file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower import patterns
from edgekit_converters.targets.tflite.lower.context import Context, Options
from edgekit_converters.targets.tflite.lower.order import reorder
from edgekit_converters.targets.tflite.lower.registry import rules
from edgekit_converters.targets.tflite.lower.tensors import Quant, Shape, Spec, Tensor, known
from edgekit_converters.targets.tflite.lower.tidy import tidy
from edgekit_converters.targets.tflite.lower.writer import TYPES, Ports, check_size, serialise, type_name


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of the file, under the model's own name."""

    name: str
    shape: Shape
    dtype: ir.DataType
    quant: Quant | None = None


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """The file and what is known of it."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    facts: Mapping[str, Any]
    min_runtime: str
    pieces: Callable[[], Iterator[bytes | memoryview]]

    @cached_property
    def data(self) -> bytes:
        """The file in memory."""
        return b"".join(self.pieces())

    def write(self, path: Path) -> None:
        """The file on disk; at no time is more than one weight in memory twice."""
        with path.open("wb") as file:
            for piece in self.pieces():
                file.write(piece)


@dataclass(frozen=True)
class Refused:
    """A node that cannot be done exactly, and why."""

    node: ir.Node
    reason: Refusal


def lower(model: ir.Model, *, options: Options | None = None) -> Lowered:
    """The TFLite file of a canonical graph (float or QDQ).

    Raises:
        Refusal: a node cannot be done exactly; the message names it, the code says why.
    """
    made = attempt(model, options=options)
    if isinstance(made, Lowered):
        return made
    raise made[0].reason


def attempt(model: ir.Model, *, options: Options | None = None) -> Lowered | list[Refused]:
    """The TFLite file, or the nodes that stand in its way (at least the first)."""
    ctx = Context(options or Options())
    found = patterns.find(ctx, model.graph)
    inputs = _inputs(ctx, model)
    refused = _lower_nodes(ctx, model.graph, found)
    if refused:
        return refused
    outputs = _outputs(ctx, model, inputs)
    kept = {tensor.index for _, tensor in (*inputs, *outputs)}
    place = tidy(ctx.graph, kept, flat_dense=ctx.options.flat_dense)
    ends = {place[tensor.index] for _, tensor in outputs}
    peaks = {"peak_bytes": reorder(ctx.graph, ends)} if ctx.options.least_memory else {}
    ports = Ports(
        tuple((port.name, place[tensor.index]) for port, tensor in inputs),
        tuple((port.name, place[tensor.index]) for port, tensor in outputs),
    )
    check_size(ctx.graph)
    return Lowered(
        pieces=lambda: serialise(ctx.graph, ports),
        inputs=tuple(port for port, _ in inputs),
        outputs=tuple(port for port, _ in outputs),
        facts={**_facts(ctx, inputs, outputs), **peaks},
        min_runtime=ctx.graph.min_runtime(),
    )


def _lower_nodes(ctx: Context, graph: ir.Graph, found: Mapping[ir.Node, patterns.Match]) -> list[Refused]:
    """Lower every node. After a refusal it goes on with stand-ins, to find the others too."""
    refused = []
    for node in graph:
        if node in ctx.done:
            continue
        try:
            _lower_node(ctx, node, found)
        except Refusal as reason:
            refused.append(Refused(node, reason))
            if not _stand_in(ctx, node):
                break
    return refused


def _stand_in(ctx: Context, node: ir.Node) -> bool:
    """Give the node's outputs tensors that nothing computes; whether enough is known of them."""
    outputs = [out for out in node.outputs if out.name]
    if any(out.shape is None or out.dtype not in TYPES for out in outputs):
        return False
    for out in outputs:
        shape, dtype = ctx.shape(out), ctx.dtype(out)
        ctx.set(out, Tensor(ctx.graph.add_tensor(out.name or "", shape, dtype, None), shape, dtype))
    return True


def _lower_node(ctx: Context, node: ir.Node, found: Mapping[ir.Node, patterns.Match]) -> None:
    rule = rules().get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise Refusal(
            f"{node.op_type} ({node.name}) has no lowering to TFLite",
            remedy="use an onnx target for this model",
            code="unsupported_op",
        )
    if _set_empty(ctx, node):
        return
    match = found.get(node)
    if match is None:
        rule.lower(ctx, node)
    else:
        patterns.lower(ctx, node, rule, match)


def _set_empty(ctx: Context, node: ir.Node) -> bool:
    """Outputs that are known to have no elements are constants; whether all of the node's are.

    LiteRT cannot hand out an empty tensor whose shape a kernel computes.
    """
    outputs = [out for out in node.outputs if out.name]
    shapes = [known(ctx.shape(out)) if out.shape is not None else None for out in outputs]
    if any(shape is None or 0 not in shape for shape in shapes):
        return False
    for out, shape in zip(outputs, shapes, strict=True):
        ctx.set(out, ctx.const(np.zeros(shape or (), ctx.dtype(out).numpy())))
    return True


def _inputs(ctx: Context, model: ir.Model) -> list[tuple[Port, Tensor]]:
    result = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        name = value.name or ""
        held = _integer_input(ctx, value)
        shape, dtype, quant = ctx.shape(value), ctx.dtype(held), ctx.quants.get(held)
        index = ctx.graph.add_tensor(name, shape, dtype, quant)
        tensor = Tensor(index, shape, dtype, quant)
        ctx.set(held, tensor)
        result.append((Port(name=name, shape=shape, dtype=dtype, quant=quant), tensor))
    return result


def _integer_input(ctx: Context, value: ir.Value) -> ir.Value:
    """The integers that stand for a float input which is quantized at once; its QuantizeLinear is done."""
    uses = tuple(value.uses())
    if not ctx.options.integer_io or len(uses) != 1 or value.is_graph_output():
        return value
    node = uses[0].node
    quant = ctx.quants.get(node.outputs[0])
    if node.op_type != "QuantizeLinear" or quant is None or quant.per_channel:
        return value
    ctx.done.add(node)
    return node.outputs[0]


def _integer_output(ctx: Context, value: ir.Value) -> ir.Value:
    """The integers behind a float output that is dequantized at last."""
    node = value.producer()
    if not ctx.options.integer_io or node is None or node.op_type != "DequantizeLinear":
        return value
    integers = node.inputs[0]
    known = integers is not None and integers in ctx.quants and integers not in ctx.unclear
    return integers if known and integers is not None and integers.const_value is None else value


def _outputs(ctx: Context, model: ir.Model, inputs: list[tuple[Port, Tensor]]) -> list[tuple[Port, Tensor]]:
    taken = {tensor.index for _, tensor in inputs}
    result = []
    for value in model.graph.outputs:
        tensor = ctx.tensor(_integer_output(ctx, value))
        if tensor.index in taken or tensor.is_constant:
            tensor = _copied(ctx, tensor)
        taken.add(tensor.index)
        name = value.name or ""
        ctx.graph.rename(tensor.index, name)
        result.append((Port(name=name, shape=tensor.shape, dtype=tensor.dtype, quant=tensor.quant), tensor))
    return result


def _copied(ctx: Context, tensor: Tensor) -> Tensor:
    """A port needs a tensor of its own; RESHAPE to the same shape copies every type."""
    if sum(size is None for size in tensor.shape) > 1:
        shape = ctx.emit("SHAPE", [tensor], Spec((len(tensor.shape),), ir.DataType.INT32), outType=2)
        return ctx.emit("RESHAPE", [tensor, shape], tensor.spec())
    whole = known(tensor.shape)
    if whole is not None and 0 in whole:  # RESHAPE takes [0] for a scalar, and leaves no data to hand out
        return ctx.emit("SLICE", [tensor, ctx.ints([0] * len(whole)), ctx.ints(whole)], tensor.spec())
    sizes = [-1 if size is None else size for size in tensor.shape]
    return ctx.emit("RESHAPE", [tensor, ctx.ints(sizes)], tensor.spec(), newShape=sizes)


def _facts(
    ctx: Context, inputs: list[tuple[Port, Tensor]], outputs: list[tuple[Port, Tensor]]
) -> dict[str, Any]:
    return {
        "ops": dict(sorted(ctx.graph.counts.items())),
        "op_count": len(ctx.graph.operators),
        "transposes": ctx.transposes,
        "int8_op_ratio": round(ctx.graph.integer_operators() / max(1, len(ctx.graph.operators)), 3),
        "int8_weights": ctx.graph.constants_of(ir.DataType.INT8),
        "int4_weights": ctx.graph.constants_of(ir.DataType.INT4),
        "fp16_weights": ctx.graph.constants_of(ir.DataType.FLOAT16),
        "input_types": [type_name(port.dtype) for port, _ in inputs],
        "output_types": [type_name(port.dtype) for port, _ in outputs],
    }
