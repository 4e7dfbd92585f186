"""FULLY_CONNECTED: products with a constant matrix. Used by Gemm and by MatMul.

After a Flatten of a value that is held channels last, the rows of the matrix are permuted instead of
the tensor.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.targets.tflite.lower import layout, weights
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.tensors import Perm, Quant, Tensor, known


def dense(
    ctx: Context,
    node: ir.Node,
    value: ir.Value,
    matrix: ir.Value,
    bias: ir.Value | None,
    *,
    transposed: bool = False,
    scale: float = 1.0,
) -> None:
    """node's output = value · matrix + bias, fused activation included.

    `matrix` is a constant (K, N), or (N, K) when `transposed`; `value` is (..., K); `bias` is a constant
    or computed (N,) or None. `scale` multiplies the matrix (float graphs only).
    """
    integers = ctx.resolved(matrix)
    assert integers.const_value is not None
    array = integers.const_value.numpy()
    rows = array if transposed else array.T
    source, perm, rows = _source(ctx, value, rows)
    filters = _filters(ctx, matrix, rows, ctx.quants.get(integers), scale)
    activation, result = ctx.fused(node)
    data = weights.bias(ctx, bias, rows.shape[0], source, filters.quant)
    if ctx.pattern is None and data.rank != 1:
        data = ctx.reshape(data, (rows.shape[0],))
    spec = ctx.output(result, perm)
    keep = source.rank > 2
    # Written only where needed: the kernels of version 1 to 4 do not know it.
    fields = {"keepNumDims": True} if keep else {}
    if filters.dtype in (ir.DataType.INT8, ir.DataType.INT4) and ctx.pattern is None:
        fields["asymmetricQuantizeInputs"] = True
    made = ctx.emit(
        "FULLY_CONNECTED", [source, filters, data], spec, fusedActivationFunction=activation, **fields
    )
    ctx.set(result, made, perm)


def _source(ctx: Context, value: ir.Value, rows: np.ndarray) -> tuple[Tensor, Perm, np.ndarray]:
    """The tensor to multiply, its axis order, and the matrix (N, K) with its columns in that tensor's order.

    Only the last axis counts: the others may stay in the order in which they are held.
    """
    found = ctx.flattened.get(ctx.resolved(value))
    if found is None:
        tensor, perm = ctx.any_layout(value)
        if perm[-1] == len(perm) - 1:
            return tensor, perm, rows
    identity = layout.identity(ctx.rank(value))
    shape = None if found is None else known(ctx.shape(found[0])[1:])
    if found is None or shape is None:
        return ctx.tensor(value), identity, rows
    source, perm = found
    tensor = ctx.reshape(ctx.held_in(source, perm), (ctx.shape(source)[0], rows.shape[1]))
    order = tuple(axis for axis in perm if axis > 0)
    return tensor, identity, rows.reshape(rows.shape[0], *shape).transpose(0, *order).reshape(rows.shape)


def _filters(ctx: Context, matrix: ir.Value, rows: np.ndarray, quant: Quant | None, scale: float) -> Tensor:
    name = matrix.name or "matrix"
    if quant is None:
        # One scale for the int8 matrix: a scale for each row needs a runtime of 2.17 and gains no speed.
        scaled = rows if scale == 1.0 else rows * np.float32(scale)
        return weights.weight(ctx, scaled, 0, name=name, per_channel=False)
    return ctx.const(rows, name=name, quant=Quant(quant.scale, quant.zero_point, 0))
