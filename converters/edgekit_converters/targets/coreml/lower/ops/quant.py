"""QuantizeLinear and DequantizeLinear as MIL's `quantize` and `dequantize` (iOS 17), or as arithmetic.

A stored tensor that is dequantized becomes a compressed constant. A pair around an activation stays a pair
of ops, so that Core ML sees W8A8; whatever MIL's ops cannot say (blocks, 16 bits, scales that are computed)
is written out in float32, with the same rounding (half to even) and saturation.
Specification: onnx/docs/Operators.md#QuantizeLinear, MIL's quantization ops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil import types

from edgekit_converters.targets.coreml.lower.node import Array, Node, Var, as_float, reshaped
from edgekit_converters.targets.coreml.lower.ops.activation import round_half_even
from edgekit_converters.targets.coreml.lower.registry import lowers

_RANGES = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-(1 << 15), (1 << 15) - 1),
    ir.DataType.UINT16: (0, (1 << 16) - 1),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
}
_EIGHT = {ir.DataType.INT8: ("int8", np.int8), ir.DataType.UINT8: ("uint8", np.uint8)}


def _plain_scale(node: Node) -> Array | None:
    """A constant scale per tensor or per axis; None otherwise."""
    scale = node.constant(1)
    if scale is None or node.integer("block_size") or scale.dtype != np.float32 or scale.ndim > 1:
        return None
    found: Array = scale.reshape(()) if scale.size == 1 else scale
    return found


def _zero_point(node: Node, scale: Array, kind: Any) -> Array | None:
    """A constant zero point of the scale's shape; None when it is computed."""
    if not node.has(2):
        return np.zeros(scale.shape, kind)
    stored = node.constant(2)
    return None if stored is None else stored.astype(kind).reshape(scale.shape)


def _options(node: Node, rank: int, scale: Array, zero: Array) -> dict[str, Any]:
    axis = {} if scale.ndim == 0 else {"axis": np.int32(node.axis(default=1, rank=rank))}
    return {"scale": scale[()], "zero_point": zero[()], **axis}


@lowers("QuantizeLinear")
def _quantize(node: Node) -> Var:
    kind = node.raw.outputs[0].dtype
    if kind not in _RANGES:
        node.refuse(f"to {kind and kind.name}", "unsupported_type")
    scale = _plain_scale(node)
    x = as_float(node.var(0))
    if node.scope.target >= 17 and scale is not None and kind in _EIGHT and x.rank:
        name, dtype = _EIGHT[kind]
        zero = _zero_point(node, scale, dtype)
        if zero is not None:
            return mb.quantize(input=x, output_dtype=name, **_options(node, x.rank, scale, zero))
    rounded = round_half_even(mb.real_div(x=x, y=_spread(node, 1, x)))
    if node.has(2):
        rounded = mb.add(x=rounded, y=_spread(node, 2, x))
    low, high = _RANGES[kind]
    return mb.cast(x=mb.clip(x=rounded, alpha=np.float32(low), beta=np.float32(high)), dtype="int32")


@lowers("DequantizeLinear")
def _dequantize(node: Node) -> Var:
    scale, kind = _plain_scale(node), node.value(0).dtype
    stored = node.constant(0)
    if scale is not None and kind in _EIGHT:
        zero = _zero_point(node, scale, _EIGHT[kind][1])
        if zero is not None and stored is not None and stored.ndim and node.scope.target >= 16:
            return _compressed(node, stored, scale, zero)
        if zero is not None and stored is None and node.scope.target >= 17 and node.var(0).rank:
            x = node.var(0)
            # Integers of the boundary are int32, and Core ML casts nothing to int8: these are computed below.
            if x.dtype in (types.int8, types.uint8):
                return mb.dequantize(input=x, **_options(node, x.rank, scale, zero))
    x = as_float(node.var(0))
    shifted = mb.sub(x=x, y=_spread(node, 2, x)) if node.has(2) else x
    return mb.mul(x=shifted, y=_spread(node, 1, x))


def _compressed(node: Node, stored: Array, scale: Array, zero: Array) -> Var:
    """A weight held in eight bits; since iOS 17 coremltools picks the op for it."""
    if node.scope.target >= 17:
        return mb.dequantize(input=stored, **_options(node, stored.ndim, scale, zero))
    axis = node.axis(default=1, rank=stored.ndim) if scale.ndim else 0
    return mb.constexpr_affine_dequantize(
        quantized_data=stored, zero_point=zero[()], scale=scale[()], axis=np.int32(axis)
    )


def _spread(node: Node, index: int, x: Var) -> Var:
    """A scale or zero point in float32, broadcast over `x`: per tensor, per axis or per block."""
    var = as_float(node.var(index))
    count = int(np.prod([int(size) for size in var.shape])) if var.rank else 1
    if count == 1:
        return reshaped(var, [])
    block, axis = node.integer("block_size"), node.axis(default=1)
    if not block:
        return reshaped(var, [-1 if i == axis else 1 for i in range(x.rank)])
    repeats = np.repeat(np.arange(int(var.shape[axis])), block)[: node.sizes(x)[axis]]
    return mb.gather(x=var, indices=repeats.astype(np.int32), axis=axis)
