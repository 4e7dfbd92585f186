"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED: int8 weights, int32 biases, one scale or one a channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.frontends.tflite_model.reader import Array
from edgekit_converters.targets.c99.fixed import multiplier_of
from edgekit_converters.targets.c99.steps import Bound, Call, Data, Step, count

SAME = 0


def conv(op: Bound) -> Step:
    """Weights (out, height, width, in / groups)."""
    source, weights = op.input(0).shape, _weights(op)
    groups, rest = divmod(source[3], weights.shape[3])
    if rest or weights.shape[0] % max(groups, 1):
        op.refuse(f"has groups that do not divide {source[3]} channels")
    op.require(op.output().shape[3] == weights.shape[0], "has weights that do not fit its output")
    fields = {**_window(op, weights.shape[1], weights.shape[2]), "groups": groups}
    return _step(op, "ek_conv", "ek_conv_t", {**fields, **_linear(op, weights, axis=0)}, "ek_conv.c")


def depthwise(op: Bound) -> Step:
    """Weights (1, height, width, out)."""
    source, weights = op.input(0).shape, _weights(op)
    if weights.shape[0] != 1 or weights.shape[3] % source[3]:
        op.refuse("has weights that do not fit its input")
    op.require(op.output().shape[3] == weights.shape[3], "has weights that do not fit its output")
    fields = {**_window(op, weights.shape[1], weights.shape[2]), "groups": source[3]}
    return _step(
        op, "ek_depthwise", "ek_conv_t", {**fields, **_linear(op, weights, axis=3)}, "ek_depthwise.c"
    )


def dense(op: Bound) -> Step:
    """Weights (out, in); all dimensions of the input but what makes a row are samples."""
    weights = _weights(op)
    rows, rest = divmod(count(op.input(0).shape), weights.shape[1])
    if rest or count(op.output().shape) != rows * weights.shape[0]:
        op.refuse("has weights that do not fit its input")
    if op.option("weightsFormat") != 0:
        op.refuse("has shuffled weights")
    fields = {"rows": rows, "in_c": weights.shape[1], "out_c": weights.shape[0]}
    return _step(op, "ek_dense", "ek_dense_t", {**fields, **_linear(op, weights, axis=0)}, "ek_dense.c")


def _step(op: Bound, function: str, struct: str, fields: dict[str, Any], source: str) -> Step:
    ends = (op.index(0), op.op.outputs[0])
    call = Call(function=function, struct=struct, fields=fields, tensors=ends, source=source)
    return Step(kind=op.kind, calls=(call,), inputs=ends[:1], outputs=ends[1:])


def _weights(op: Bound) -> Array:
    tensor = op.input(1)
    wanted = 2 if op.kind == "FULLY_CONNECTED" else 4
    if len(tensor.shape) != wanted or (
        wanted == 4 and {len(op.input(0).shape), len(op.output().shape)} != {4}
    ):
        op.refuse("is taken with four dimensions (dense: two of weights) only")
    if tensor.data is None:
        op.refuse("is taken with constant weights only")
    if tensor.dtype != np.int8 or tensor.scale is None:
        op.refuse(f"has weights of type {tensor.dtype}, not quantized int8")
    if tensor.zero is not None and np.any(tensor.zero):
        op.refuse("has weights with a zero point")
    return tensor.data


def _linear(op: Bound, weights: Array, axis: int) -> dict[str, Any]:
    """Weights, bias, zero points, limits and scales."""
    scale, zero = op.quantization(op.input(0))
    out_scale, out_zero = op.quantization(op.output())
    tensor = op.input(1)
    assert tensor.scale is not None
    if len(tensor.scale) > 1 and tensor.axis != axis:
        op.refuse(f"has scales along axis {tensor.axis} of its weights")
    pairs = [multiplier_of(scale * float(item) / out_scale) for item in tensor.scale]
    low, high = op.limits()
    return {
        "in_zero": zero,
        "out_zero": out_zero,
        "low": low,
        "high": high,
        "weights": Data(ctype="int8_t", values=weights),
        "bias": _bias(op, weights.shape[axis]),
        "scales": {
            "multiplier": Data(ctype="int32_t", values=np.array([pair[0] for pair in pairs], np.int32)),
            "shift": Data(ctype="int8_t", values=np.array([pair[1] for pair in pairs], np.int8)),
            "step": int(len(pairs) > 1),
        },
    }


def _bias(op: Bound, channels: int) -> Data | None:
    if op.index(2) < 0:
        return None
    values = op.constant(2)
    if values.dtype != np.int32:
        op.refuse(f"has a bias of type {values.dtype}")
    op.require(values.size == channels, f"has {values.size} biases for {channels} channels")
    return Data(ctype="int32_t", values=values) if np.any(values) else None


def _window(op: Bound, height: int, width: int) -> dict[str, Any]:
    """Sizes, strides, dilations and the padding before the first element."""
    source, target = op.input(0).shape, op.output().shape
    if len(source) != 4 or len(target) != 4:
        op.refuse("is taken with four dimensions only")
    dilation = (op.option("dilationHFactor", 1), op.option("dilationWFactor", 1))
    step = (op.option("strideH", 1), op.option("strideW", 1))
    same = op.option("padding") == SAME
    op.require(source[0] == target[0], "changes the batch")
    for place, kernel in enumerate((height, width)):
        wanted = after(source[1 + place], kernel, step[place], dilation[place], same)
        op.require(target[1 + place] == wanted, f"gives {list(target)} for {list(source)}")
    return {
        "batch": source[0],
        "in_h": source[1],
        "in_w": source[2],
        "in_c": source[3],
        "out_h": target[1],
        "out_w": target[2],
        "out_c": target[3],
        "k_h": height,
        "k_w": width,
        "stride_h": step[0],
        "stride_w": step[1],
        "dilation_h": dilation[0],
        "dilation_w": dilation[1],
        "pad_top": before(source[1], target[1], height, step[0], dilation[0]) if same else 0,
        "pad_left": before(source[2], target[2], width, step[1], dilation[1]) if same else 0,
    }


def after(size: int, kernel: int, step: int, dilation: int, same: bool) -> int:
    """Elements of the result; 0 for what cannot be."""
    if min(size, kernel, step, dilation) < 1:
        return 0
    return -(-(size if same else size - (kernel - 1) * dilation) // step)


def before(size: int, result: int, kernel: int, step: int, dilation: int = 1) -> int:
    """Padding before the first element with SAME."""
    return max((result - 1) * step + (kernel - 1) * dilation + 1 - size, 0) // 2


OPS = {"CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": dense}
