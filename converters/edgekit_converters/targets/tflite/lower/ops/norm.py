"""Normalisations with a kernel of their own, and the affine form of BatchNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower import layout
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Perm, Tensor


@lowers("Softmax", quantized=Quantized.FIXED, dtypes=("INT8", "INT16"))
def softmax(ctx: Context, node: ir.Node) -> None:
    """Along one axis; the kernel works along the last."""
    _along_last(ctx, node, "SOFTMAX", beta=1.0)


@lowers("LogSoftmax", quantized=Quantized.FIXED)
def log_softmax(ctx: Context, node: ir.Node) -> None:
    """Logarithm of softmax."""
    _along_last(ctx, node, "LOG_SOFTMAX")


def _along_last(ctx: Context, node: ir.Node, op: str, **fields: Any) -> None:
    value = nodes.required(node, 0)
    if ctx.pattern is None and ctx.dtype(value) is not ir.DataType.FLOAT:
        nodes.refuse(node, f"{op} of {ctx.dtype(value).name}", code="unsupported_type")
    rank = ctx.rank(value)
    if rank == 0:
        nodes.refuse(node, f"{op} of a single number", code="unsupported_attribute")
    tensor, perm = axis_last(ctx, value, nodes.axis_of(node, rank, default=-1))
    flat = _at_most_four(ctx, tensor)
    spec = ctx.output(node, perm)
    if flat is tensor:
        ctx.set(node.outputs[0], ctx.emit(op, [tensor], spec, **fields), perm)
        return
    made = ctx.emit(op, [flat], flat.spec() if ctx.pattern is None else spec, **fields)
    ctx.set(node.outputs[0], ctx.reshape(made, spec.shape), perm)


def _at_most_four(ctx: Context, tensor: Tensor) -> Tensor:
    """The kernels take one to four axes; more are folded into the first."""
    if tensor.rank <= 4:
        return tensor
    sizes = tensor.shape[:-1]
    if ctx.pattern is not None or sum(size is None for size in sizes) > 1:
        raise Refusal("a normalisation over more than four axes", code="unsupported_attribute")
    rows = None if None in sizes else int(np.prod([size for size in sizes if size is not None]))
    return ctx.reshape(tensor, (rows, tensor.shape[-1]))


def axis_last(ctx: Context, value: ir.Value, axis: int) -> tuple[Tensor, Perm]:
    """`value` in an order that ends with `axis`: one at hand, else the logical order with it moved."""
    tensor, perm = ctx.any_layout(value)
    if perm[-1] == axis:
        return tensor, perm
    wanted = (*(item for item in layout.identity(len(perm)) if item != axis), axis)
    return ctx.in_order(value, wanted), wanted


@lowers("LRN")
def local_response(ctx: Context, node: ir.Node) -> None:
    """x / (bias + alpha/size · Σ x²)^beta over neighbouring channels; the kernel wants channels last."""
    value, size = nodes.required(node, 0), nodes.attr_int(node, "size", 1)
    if ctx.rank(value) != 4 or ctx.dtype(value) is not ir.DataType.FLOAT or size % 2 == 0:
        nodes.refuse(node, f"LRN of size {size} over {ctx.shape(value)}", code="unsupported_attribute")
    perm = layout.channels_last(4)
    made = ctx.emit(
        "LOCAL_RESPONSE_NORMALIZATION",
        [ctx.channels_last(value)],
        ctx.output(node, perm),
        radius=(size - 1) // 2,
        bias=nodes.attr_float(node, "bias", 1.0),
        alpha=nodes.attr_float(node, "alpha", 1e-4) / size,
        beta=nodes.attr_float(node, "beta", 0.75),
    )
    ctx.set(node.outputs[0], made, perm)


@lowers("BatchNormalization")
def batch_norm(ctx: Context, node: ir.Node) -> None:
    """x · a + b per channel, where the statistics are known; training mode is refused."""
    value = nodes.required(node, 0)
    known = [ctx.constant(nodes.required(node, index)) for index in range(1, 5)]
    if any(nodes.used_outputs(node)[1:]) or nodes.attr_int(node, "training_mode", 0):
        nodes.refuse(node, "training mode", code="unsupported_attribute")
    if ctx.dtype(value) is not ir.DataType.FLOAT:
        nodes.refuse(node, f"a normalisation of {ctx.dtype(value).name}", code="unsupported_type")
    tensor, perm = ctx.any_layout(value)
    if any(item is None for item in known):
        _computed(ctx, node, tensor, perm)
        return
    scale, shift, mean, variance = (np.asarray(item, np.float64) for item in known)
    factor = scale / np.sqrt(variance + nodes.attr_float(node, "epsilon", 1e-5))
    offset = shift - mean * factor
    made = ctx.binary("MUL", tensor, _per_channel(ctx, factor, perm))
    activation, result = ctx.fused(node)
    spec = ctx.output(result, perm)
    added = ctx.emit("ADD", [made, _per_channel(ctx, offset, perm)], spec, fusedActivationFunction=activation)
    ctx.set(result, added, perm)


def _computed(ctx: Context, node: ir.Node, tensor: Tensor, perm: Perm) -> None:
    """(x - mean) · (scale / √(variance + ε)) + shift, all computed."""
    shape = [1] * len(perm)
    channels = ctx.shape(nodes.required(node, 0))[1] if len(perm) > 1 else 1
    shape[perm.index(1) if len(perm) > 1 else 0] = channels or 1
    scale, shift, mean, variance = (
        ctx.reshape(ctx.tensor(nodes.required(node, index)), shape) for index in range(1, 5)
    )
    epsilon = ctx.const(np.array(nodes.attr_float(node, "epsilon", 1e-5), np.float32))
    root = ctx.unary("RSQRT", ctx.binary("ADD", variance, epsilon))
    made = ctx.binary("MUL", ctx.binary("SUB", tensor, mean), ctx.binary("MUL", scale, root))
    ctx.set(node.outputs[0], ctx.emit("ADD", [made, shift], ctx.output(node, perm)), perm)


def _per_channel(ctx: Context, array: np.ndarray, perm: Perm) -> Tensor:
    shape = [1] * len(perm)
    shape[perm.index(1) if len(perm) > 1 else 0] = -1
    small = np.asarray(array, np.float32).reshape(shape)
    return ctx.const(small.reshape(-1) if perm[-1] == 1 else small)
