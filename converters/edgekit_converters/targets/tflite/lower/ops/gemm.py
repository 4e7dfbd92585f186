"""Gemm: FULLY_CONNECTED for a constant matrix, BATCH_MATMUL otherwise."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.dense import dense
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor


@lowers("Gemm", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def gemm(ctx: Context, node: ir.Node) -> None:
    """alpha · A · B + beta · C, both matrices possibly transposed."""
    left, right = nodes.required(node, 0), nodes.required(node, 1)
    if ctx.dtype(left) is not ir.DataType.FLOAT:
        nodes.refuse(node, f"a product of {ctx.dtype(left).name}", code="unsupported_type")
    alpha, beta = nodes.attr_float(node, "alpha", 1.0), nodes.attr_float(node, "beta", 1.0)
    third, trans = nodes.operand(node, 2), bool(nodes.attr_int(node, "transB", 0))
    simple = third is None or (beta == 1.0 and _is_row(ctx, third, node))
    constant = ctx.resolved(right).const_value is not None
    if constant and simple and not nodes.attr_int(node, "transA", 0):
        dense(ctx, node, left, right, third, transposed=trans, scale=alpha)
        return
    if ctx.pattern is not None:
        nodes.refuse(node, "an integer product of this form", code="unsupported_attribute")
    _general(ctx, node, alpha, beta)


def _is_row(ctx: Context, value: ir.Value, node: ir.Node) -> bool:
    """Whether C is one number for every column of the result."""
    shape = ctx.shape(value)
    width = ctx.shape(node.outputs[0])[-1]
    return (
        width is not None and int(np.prod([size or 0 for size in shape])) == width and shape[-1:] == (width,)
    )


def _general(ctx: Context, node: ir.Node, alpha: float, beta: float) -> None:
    left, right, third = ctx.tensor(nodes.required(node, 0)), nodes.required(node, 1), nodes.operand(node, 2)
    made = ctx.emit(
        "BATCH_MATMUL",
        [left, ctx.tensor(right)],
        Spec(ctx.shape(node.outputs[0]), ir.DataType.FLOAT),
        adjX=bool(nodes.attr_int(node, "transA", 0)),
        adjY=bool(nodes.attr_int(node, "transB", 0)),
    )
    made = _scaled(ctx, made, alpha)
    if third is not None and beta != 0.0:
        made = ctx.binary("ADD", made, _scaled(ctx, ctx.tensor(third), beta))
    ctx.set(node.outputs[0], made)


def _scaled(ctx: Context, tensor: Tensor, factor: float) -> Tensor:
    return tensor if factor == 1.0 else ctx.binary("MUL", tensor, ctx.const(np.array(factor, np.float32)))
