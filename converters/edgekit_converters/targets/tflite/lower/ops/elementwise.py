"""Elementwise ops."""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers


@lowers("Add", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def add(ctx: Context, node: ir.Node) -> None:
    """Sum with broadcasting; a following Relu is fused."""
    (left, right), perm = ctx.align([_given(node, 0), _given(node, 1)])
    activation, value = ctx.fused(node)
    spec = ctx.output(value, perm)
    ctx.set(value, ctx.emit("ADD", [left, right], spec, fusedActivationFunction=activation), perm)


@lowers("Relu", quantized=Quantized.SAME)
def relu(ctx: Context, node: ir.Node) -> None:
    """max(x, 0)."""
    tensor, perm = ctx.any_layout(_given(node, 0))
    ctx.set(node.outputs[0], ctx.emit("RELU", [tensor], ctx.output(node, perm)), perm)


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value
