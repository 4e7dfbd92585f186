"""Weights and biases as the chosen precision stores them.

float32 as they are; float16 with a DEQUANTIZE that runtimes resolve when they load the file; int8 and
int4 per output channel, symmetric, for the hybrid kernels (activations are quantized while the model
runs); inside a quantized pattern the integers of the QDQ graph. Small weights stay float32: the hybrid
kernels gain nothing there.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower.context import SMALLEST_HALF, Context
from edgekit_converters.targets.tflite.lower.tensors import Perm, Quant, Tensor

SMALLEST_INT4 = 4096
"""Smaller weights stay int8 in an int4 file: they save little and cost much."""
SMALLEST = 1024
"""Weights of fewer elements stay float32 where the hybrid kernels would run them."""

Array = NDArray[Any]


def weight(
    ctx: Context,
    array: Array,
    axis: int,
    *,
    name: str,
    hybrid: bool = True,
    per_channel: bool = True,
    depthwise: bool = False,
) -> Tensor:
    """A constant weight in the order its op wants; `axis` is its output channel there.

    `per_channel` False: int8 weights get one scale (int4 ones cannot do with that). LiteRT has hybrid
    kernels for int8 but none for int4 where `depthwise`, and neither where not `hybrid`.
    """
    kind = ctx.options.weights
    smallest = SMALLEST_HALF if kind == "float16" else SMALLEST
    if kind == "float32" or array.dtype != np.float32 or array.size < smallest:
        return ctx.const(array, name=name)
    if kind == "float16" or not hybrid:
        return ctx.half(array, name=name)
    if not per_channel and kind == "int8":
        return _integers(ctx, array, None, name=name, bits=8)
    four = kind == "int4" and array.size >= SMALLEST_INT4 and not depthwise
    return _integers(ctx, array, axis, name=name, bits=4 if four else 8)


def _integers(ctx: Context, array: Array, axis: int | None, *, name: str, bits: int) -> Tensor:
    limit = 2 ** (bits - 1) - 1
    others = tuple(i for i in range(array.ndim) if i != axis)
    peaks = np.abs(array).max(axis=others, keepdims=True).astype(np.float64)
    scale = np.where(peaks > 0, peaks / limit, 1.0)
    scale = (scale if bits == 8 else _clipped(array, scale, limit, others)).astype(np.float32)
    values = np.clip(np.rint(array / scale), -limit, limit).astype(np.int8)
    quant = Quant(tuple(map(float, scale.reshape(-1))), (0,) * scale.size, axis or 0)
    return ctx.const(values if bits == 8 else values.astype(ml_dtypes.int4), name=name, quant=quant)


def _clipped(array: Array, scale: Array, limit: int, others: tuple[int, ...]) -> Array:
    """Per channel the scale, at most `scale`, with the smallest squared error."""
    best, least = scale, np.full(scale.shape, np.inf)
    for share in np.linspace(0.5, 1.0, 26):
        tried = scale * share
        gap = np.clip(np.rint(array / tried), -limit, limit) * tried - array
        error = np.square(gap).sum(axis=others, keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best


def of_value(
    ctx: Context,
    value: ir.Value,
    perm: Perm,
    channel: int,
    shape: tuple[int, ...] | None = None,
    *,
    depthwise: bool = False,
) -> Tensor:
    """The weight `value` transposed by `perm` (and reshaped, which may only put in axes of one).

    `channel` is the output channel's axis after that. A weight that is computed is brought into that order.
    """
    resolved = ctx.resolved(value)
    if resolved.const_value is None:
        made = ctx.in_order(value, perm)
        return made if shape is None else ctx.reshape(made, shape)
    array = resolved.const_value.numpy().transpose(perm)
    array = array if shape is None else array.reshape(shape)
    name = value.name or "weight"
    quant = ctx.quants.get(resolved)
    if quant is None:
        return weight(ctx, array, channel, name=name, depthwise=depthwise)
    axis = channel if quant.per_channel else 0
    return ctx.const(array, name=name, quant=Quant(quant.scale, quant.zero_point, axis))


def bias(ctx: Context, value: ir.Value | None, channels: int, data: Tensor, scales: Quant | None) -> Tensor:
    """The bias of an op on `data` whose weight has `scales`; zeros where there is none."""
    if ctx.pattern is not None and data.quant is not None and scales is not None:
        return _integer_bias(ctx, value, channels, data, scales)
    if value is None:
        return ctx.const(np.zeros(channels, np.float32), name="zero_bias")
    return ctx.tensor(value)


def _integer_bias(ctx: Context, value: ir.Value | None, channels: int, data: Tensor, scales: Quant) -> Tensor:
    """int32 (int64 beside int16 activations) at the scale input times weight, as the kernels add it."""
    assert data.quant is not None
    grid = np.broadcast_to(np.float64(data.quant.scale[0]) * np.array(scales.scale, np.float64), (channels,))
    known = None if value is None else ctx.real(value)
    if value is not None and known is None:
        raise Refusal(f"the bias {value.name!r} of an integer op is computed", code="requires_constant_input")
    real = np.zeros(channels) if known is None else known.astype(np.float64)
    wide = np.int64 if data.dtype is ir.DataType.INT16 else np.int32
    limits = np.iinfo(np.int32)
    integers = np.clip(np.rint(real / grid), limits.min, limits.max).astype(wide)
    quant = Quant(tuple(float(np.float32(item)) for item in grid), (0,) * channels, 0)
    if not scales.per_channel:
        quant = Quant(quant.scale[:1], (0,), 0)
    return ctx.const(integers, name="bias", quant=quant)
