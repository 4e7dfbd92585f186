"""Functions of one number, as tables of 256 results; and the ports' QUANTIZE and DEQUANTIZE of floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgekit_converters.targets.c99.fixed import (
    clamped,
    hard_swish_table,
    hyperbolic_tangent,
    logistic,
    multiplier_of,
    scaled,
    sigmoid_table,
)
from edgekit_converters.targets.c99.steps import Bound, Call, Data, Step, count

_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))


def rectifier(op: Bound) -> Step:
    """RELU and its kin, with a change of scale."""
    (scale, zero), (out_scale, out_zero) = op.quantization(op.input(0)), op.quantization(op.output())
    low, high = op.limits({"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}[op.kind])
    pair = multiplier_of(scale / out_scale)
    return _table(op, [clamped(out_zero + scaled(x - zero, *pair), low, high) for x in range(-128, 128)])


def leaky(op: Bound) -> Step:
    """LEAKY_RELU: one multiplier above zero, one below."""
    (scale, zero), (out_scale, out_zero) = op.quantization(op.input(0)), op.quantization(op.output())
    above = multiplier_of(scale / out_scale)
    slope = float(op.option("alpha", 0.0))
    if slope <= 0:
        op.refuse(f"has slope {slope}")
    below = multiplier_of(scale * slope / out_scale)
    values = (out_zero + scaled(x - zero, *(above if x >= zero else below)) for x in range(-128, 128))
    return _table(op, [clamped(value) for value in values])


def hard_swish(op: Bound) -> Step:
    """HARD_SWISH in 16 bits."""
    (scale, zero), (out_scale, out_zero) = op.quantization(op.input(0)), op.quantization(op.output())
    op.require(scale / 128 < out_scale, "has an output scale that is too small")
    return _table(op, hard_swish_table((scale, out_scale), (zero, out_zero)))


def sigmoid(op: Bound) -> Step:
    """LOGISTIC: the output's scale is given."""
    scale, zero = op.quantization(op.input(0))
    if op.quantization(op.output()) != (1 / 256, -128):
        op.refuse("has another output scale than 1/256 from -128")
    return _table(op, sigmoid_table(scale, zero, logistic, 8, -128))


def tanh(op: Bound) -> Step:
    """TANH: the output's scale is given."""
    scale, zero = op.quantization(op.input(0))
    if op.quantization(op.output()) != (1 / 128, 0):
        op.refuse("has another output scale than 1/128 from 0")
    return _table(op, sigmoid_table(scale, zero, hyperbolic_tangent, 7, 0))


def quantize(op: Bound) -> Step:
    """Floats to int8, or one kind of 8-bit integers to another."""
    if op.input(0).dtype == np.float32:
        scale, zero = op.quantization(op.output())
        return _real(op, "ek_quantize", scale, zero)
    (scale, zero), (out_scale, out_zero) = _any_bytes(op, 0), _any_bytes(op, None)
    pair = multiplier_of(scale / out_scale)
    limits = np.iinfo(op.output().dtype)
    numbers = range(-128, 128) if op.input(0).dtype == np.int8 else range(256)
    found = [clamped(out_zero + scaled(x - zero, *pair), limits.min, limits.max) for x in numbers]
    return _table(op, found, signed=op.input(0).dtype == np.int8)


def dequantize(op: Bound) -> Step:
    """int8 to floats."""
    scale, zero = op.quantization(op.input(0))
    if op.output().dtype != np.float32:
        op.refuse(f"gives {op.output().dtype}")
    return _real(op, "ek_dequantize", scale, zero)


def _any_bytes(op: Bound, place: int | None) -> tuple[float, int]:
    """Scale and zero point of an int8 or uint8 tensor."""
    tensor = op.output() if place is None else op.input(place)
    if tensor.dtype not in _BYTES or tensor.scale is None or tensor.zero is None:
        op.refuse(f"has a tensor of type {tensor.dtype}")
    return float(tensor.scale[0]), int(tensor.zero[0])


def _table(op: Bound, values: Sequence[int], signed: bool = True) -> Step:
    """`values` for -128 to 127 (or 0 to 255), stored by the number's bits."""
    op.require(count(op.input(0).shape) == count(op.output().shape), "changes the number of elements")
    bits = np.array([value & 255 for value in values], np.uint8).view(np.int8)
    table = np.concatenate([bits[128:], bits[:128]]) if signed else bits
    fields = {"count": count(op.output().shape), "table": Data(ctype="int8_t", values=table)}
    ends = (op.index(0), op.op.outputs[0])
    call = Call(function="ek_lookup", struct="ek_lookup_t", fields=fields, tensors=ends, source="ek_lookup.c")
    return Step(kind=op.kind, calls=(call,), inputs=ends[:1], outputs=ends[1:], in_place=(0,))


def _real(op: Bound, function: str, scale: float, zero: int) -> Step:
    op.require(count(op.input(0).shape) == count(op.output().shape), "changes the number of elements")
    fields = {"count": count(op.output().shape), "zero": zero, "scale": scale}
    ends = (op.index(0), op.op.outputs[0])
    call = Call(function=function, struct="ek_real_t", fields=fields, tensors=ends, source="ek_real.c")
    return Step(kind=op.kind, calls=(call,), inputs=ends[:1], outputs=ends[1:])


OPS: dict[str, Callable[[Bound], Step]] = {
    "RELU": rectifier,
    "RELU_N1_TO_1": rectifier,
    "RELU6": rectifier,
    "LEAKY_RELU": leaky,
    "HARD_SWISH": hard_swish,
    "LOGISTIC": sigmoid,
    "TANH": tanh,
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
}
