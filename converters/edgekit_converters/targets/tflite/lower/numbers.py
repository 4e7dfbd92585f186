"""Element types: what a kernel does not take is computed in a wider type, or moved as bits of its size.

Facts by trial with ai_edge_litert 2.3.0 (float and integer tensors without a scale):

- arithmetic: ADD, SUB, MUL, MAXIMUM, MINIMUM, FLOOR_MOD, SUM, REDUCE_* take FLOAT, INT32, INT64; POW and
  DIV take FLOAT and INT32; SQUARED_DIFFERENCE likewise. int8 and uint8 without a scale make ADD, SUB and
  the comparisons abort the process, and MUL, SUM give other numbers: those types are widened.
- float16 has native kernels only through XNNPACK; float32 in between rounds every single op correctly.
- CAST takes every pair but uint64; integers wrap, floats saturate.
- moving: RESHAPE, TRANSPOSE, SLICE, STRIDED_SLICE, TILE, BROADCAST_TO, MIRROR_PAD, SELECT_V2, FILL, SQUEEZE
  and BITCAST take every type (ranks up to 8); CONCATENATION, SPLIT, GATHER, GATHER_ND, PAD, PACK,
  REVERSE_V2 leave out double, uint16, uint32, uint64; SCATTER_ND also float16 and int16.
- STABLEHLO_ADD, _MULTIPLY, _MAXIMUM, _MINIMUM take every type, _AND every integer one; shapes must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor

D = ir.DataType

NUMBERS = frozenset({D.FLOAT, D.INT32, D.INT64})
"""What the arithmetic kernels take."""
FLOATS = frozenset({D.FLOAT})
MOVED = frozenset({D.FLOAT, D.INT8, D.UINT8, D.INT16, D.INT32, D.INT64, D.BOOL})
"""What CONCATENATION, GATHER, PAD and their like take (float16 only since LiteRT 2)."""

_WIDER = {
    D.FLOAT16: D.FLOAT,
    D.BFLOAT16: D.FLOAT,
    D.BOOL: D.INT32,
    D.INT8: D.INT32,
    D.UINT8: D.INT32,
    D.INT16: D.INT32,
    D.UINT16: D.INT32,
    D.INT32: D.INT64,
    D.UINT32: D.INT64,
}
_SAME_BITS = {
    D.FLOAT16: D.INT16,
    D.BFLOAT16: D.INT16,
    D.UINT16: D.INT16,
    D.UINT32: D.INT32,
    D.UINT64: D.INT64,
    D.DOUBLE: D.INT64,
    D.BOOL: D.UINT8,
}
UNSIGNED = frozenset({D.UINT8, D.UINT16, D.UINT32, D.UINT64})


def wide_type(dtype: ir.DataType, kinds: Iterable[ir.DataType]) -> ir.DataType:
    """The first type that holds every value of `dtype` and is one of `kinds`.

    Raises:
        Refusal: there is none.
    """
    kinds, wide = frozenset(kinds), dtype
    while wide not in kinds:
        if wide not in _WIDER:
            raise Refusal(
                f"LiteRT has no kernel that computes this in {dtype.name.lower()}",
                remedy="use float32 or int32 in the model, or an onnx target",
                code="unsupported_type",
            )
        wide = _WIDER[wide]
    return wide


def widened(ctx: Context, tensor: Tensor, kinds: Iterable[ir.DataType]) -> Tensor:
    """`tensor` in a type of `kinds`; a quantized one stays as it is (its kernels take it).

    Raises:
        Refusal: no type of `kinds` holds its values.
    """
    if tensor.quant is not None:
        return tensor
    return ctx.cast(tensor, wide_type(tensor.dtype, kinds))


def moved(
    ctx: Context, tensor: Tensor, move: Callable[[Tensor], Tensor], kinds: Iterable[ir.DataType] = MOVED
) -> Tensor:
    """What `move` (an op that copies elements) makes of `tensor`, by way of the same bits in another type."""
    bits = as_bits(ctx, tensor, kinds)
    return from_bits(ctx, move(bits), tensor.dtype)


def as_bits(ctx: Context, tensor: Tensor, kinds: Iterable[ir.DataType] = MOVED) -> Tensor:
    """The same bits in a type of `kinds`.

    Raises:
        Refusal: there is none of that size.
    """
    kinds = frozenset(kinds)
    if tensor.dtype in kinds or tensor.quant is not None:
        return tensor
    same = _SAME_BITS.get(tensor.dtype)
    if same is None or same not in kinds:
        return ctx.cast(tensor, wide_type(tensor.dtype, kinds))
    return bitcast(ctx, tensor, same)


def from_bits(ctx: Context, tensor: Tensor, dtype: ir.DataType) -> Tensor:
    """Undo `as_bits`."""
    if tensor.dtype is dtype or tensor.quant is not None:
        return tensor
    return bitcast(ctx, tensor, dtype) if _SAME_BITS.get(dtype) is tensor.dtype else ctx.cast(tensor, dtype)


def bitcast(ctx: Context, tensor: Tensor, dtype: ir.DataType) -> Tensor:
    """The same bits read as another type of the same size."""
    return ctx.emit("BITCAST", [tensor], Spec(tensor.shape, dtype)) if tensor.dtype is not dtype else tensor
