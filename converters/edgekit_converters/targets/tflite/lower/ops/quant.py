"""QuantizeLinear and DequantizeLinear outside integer patterns.

With constant scales they are QUANTIZE and DEQUANTIZE; else, or for types that those kernels do not
take, plain arithmetic. Inside a pattern neither is lowered at all (see `patterns`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower import weights
from edgekit_converters.targets.tflite.lower.context import Context, dequantized
from edgekit_converters.targets.tflite.lower.registry import lowers
from edgekit_converters.targets.tflite.lower.tensors import Perm, Quant, Spec, Tensor

_D = ir.DataType
_STORED = (_D.INT8, _D.UINT8, _D.INT16)
_STEPS = {(_D.INT8, _D.INT8), (_D.INT16, _D.INT8), (_D.INT16, _D.INT16)}
_RANGES = {_D.INT8: (-128, 127), _D.UINT8: (0, 255), _D.INT16: (-32768, 32767), _D.UINT16: (0, 65535)}


@lowers("DequantizeLinear")
def dequantize(ctx: Context, node: ir.Node) -> None:
    """(x - zero) · scale. Nothing is written until somebody asks for the floats."""
    source = nodes.required(node, 0)
    quant = ctx.quants.get(source)
    if quant is None or source in ctx.unclear or ctx.dtype(node.outputs[0]) is not _D.FLOAT:
        _arithmetic_dequantize(ctx, node)
        return

    def make() -> None:
        _dequantized(ctx, node, source, quant)

    ctx.defer(node.outputs[0], make)


def _dequantized(ctx: Context, node: ir.Node, source: ir.Value, quant: Quant) -> None:
    array = ctx.constant(source)
    if array is not None and (array.size < weights.SMALLEST or ctx.dtype(source) not in _STORED):
        real = dequantized(array, quant).astype(np.float32)
        ctx.set(node.outputs[0], ctx.const(real, name=node.outputs[0].name or "const"))
    elif ctx.dtype(source) in _STORED and (array is not None or not quant.per_channel):
        tensor, perm = ctx.any_layout(source)
        if tensor.quant is None:
            _arithmetic_dequantize(ctx, node)
            return
        ctx.set(node.outputs[0], ctx.emit("DEQUANTIZE", [tensor], Spec(tensor.shape, _D.FLOAT)), perm)
    else:
        _arithmetic_dequantize(ctx, node)


def _arithmetic_dequantize(ctx: Context, node: ir.Node) -> None:
    source, out = nodes.required(node, 0), node.outputs[0]
    if ctx.dtype(out) is not _D.FLOAT:
        nodes.refuse(node, f"to {ctx.dtype(out).name}", code="unsupported_type")
    if ctx.dtype(source) not in (*_RANGES, _D.INT32):
        nodes.refuse(node, f"of {ctx.dtype(source).name}", code="unsupported_type")
    real = ctx.cast(ctx.tensor(source), _D.FLOAT)
    zero = _parameter(ctx, node, 2)
    scale = _parameter(ctx, node, 1)
    if scale is None:
        nodes.refuse(node, "without a scale", code="corrupt_source")
    centred = real if zero is None else ctx.binary("SUB", real, zero)
    ctx.set(out, ctx.emit("MUL", [centred, scale], ctx.output(node)))


@lowers("QuantizeLinear")
def quantize(ctx: Context, node: ir.Node) -> None:
    """x / scale rounded half to even, plus zero, saturated."""
    source, out = nodes.required(node, 0), node.outputs[0]
    if ctx.dtype(source) is not _D.FLOAT:
        nodes.refuse(node, f"of {ctx.dtype(source).name}", code="unsupported_type")
    quant = ctx.quants.get(out)
    kind = ctx.dtype(out)
    plain = not out.is_graph_output() or ctx.options.grammar is not None
    if quant is not None and kind in _STORED and not quant.per_channel and plain:
        tensor, perm = _integers_behind(ctx, source, kind) or ctx.any_layout(source)
        ctx.set(out, ctx.emit("QUANTIZE", [tensor], Spec(tensor.shape, kind, quant)), perm)
        return
    if kind not in _RANGES:
        nodes.refuse(node, f"to {kind.name}", code="unsupported_type")
    scale, zero = _parameter(ctx, node, 1), _parameter(ctx, node, 2)
    assert scale is not None
    made = ctx.unary("ROUND", ctx.binary("DIV", ctx.tensor(source), scale))
    made = made if zero is None else ctx.binary("ADD", made, zero)
    low, high = (ctx.const(np.array(end, np.float32)) for end in _RANGES[kind])
    made = ctx.binary("MINIMUM", ctx.binary("MAXIMUM", made, low), high)
    # The step over int32 keeps the cast defined for every runtime.
    ctx.set(out, ctx.cast(ctx.cast(made, _D.INT32), kind))


def _integers_behind(ctx: Context, value: ir.Value, kind: ir.DataType) -> tuple[Tensor, Perm] | None:
    """The integers that `value` dequantizes, where QUANTIZE takes them to `kind` in one step."""
    node = value.producer()
    integers = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None
    if integers is None or integers not in ctx.quants or integers in ctx.unclear:
        return None
    if integers.const_value is not None or (ctx.dtype(integers), kind) not in _STEPS:
        return None
    tensor, perm = ctx.any_layout(integers)
    return (tensor, perm) if tensor.quant is not None and not tensor.quant.per_channel else None


def _parameter(ctx: Context, node: ir.Node, index: int) -> Tensor | None:
    """A scale or zero point as floats, shaped to multiply along the node's axis."""
    value = nodes.operand(node, index)
    if value is None:
        return None
    tensor = ctx.cast(ctx.tensor(value), _D.FLOAT)
    rank = ctx.rank(nodes.required(node, 0))
    if tensor.rank == 0 or tensor.shape == (1,) or rank == 0:
        return tensor
    axis = nodes.axis_of(node, rank, default=1)
    if tensor.rank > 1:
        return _repeated(ctx, node, tensor, axis)
    return ctx.reshape(tensor, [tensor.shape[0] if i == axis else 1 for i in range(rank)])


def _repeated(ctx: Context, node: ir.Node, tensor: Tensor, axis: int) -> Tensor:
    """Parameters of blocks along `axis`, one for each element."""
    size, block = ctx.shape(nodes.required(node, 0))[axis], nodes.attr_int(node, "block_size", 0)
    if size is None or block < 1:
        nodes.refuse(node, "blocks over a size known only at run time", code="dynamic_shape")
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    places = ctx.ints(np.arange(size) // block)
    return ctx.emit("GATHER", [tensor, places], tensor.spec(shape), axis=axis)
