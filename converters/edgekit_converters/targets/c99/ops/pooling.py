"""AVERAGE_POOL_2D, MAX_POOL_2D, MEAN and SOFTMAX."""

from __future__ import annotations

import numpy as np

from edgekit_converters.targets.c99.fixed import INT32_MAX, multiplier_of, softmax_exponents
from edgekit_converters.targets.c99.ops.linear import SAME, after, before
from edgekit_converters.targets.c99.steps import Bound, Call, Data, Step, count, padded, strides


def pool(op: Bound) -> Step:
    """Input and output share a scale."""
    source, target = op.input(0).shape, op.output().shape
    if op.quantization(op.input(0)) != op.quantization(op.output()):
        op.refuse("changes the scale")
    kernel = (op.option("filterHeight"), op.option("filterWidth"))
    step = (op.option("strideH", 1), op.option("strideW", 1))
    same = op.option("padding") == SAME
    op.require(len(source) == len(target) == 4, "is taken with four dimensions only")
    wanted = [after(source[1 + n], kernel[n], step[n], 1, same) for n in (0, 1)]
    op.require([*target] == [source[0], *wanted, source[3]], f"gives {list(target)} for {list(source)}")
    low, high = op.limits()
    fields = {
        "batch": source[0],
        "in_h": source[1],
        "in_w": source[2],
        "channels": source[3],
        "out_h": target[1],
        "out_w": target[2],
        "k_h": kernel[0],
        "k_w": kernel[1],
        "stride_h": step[0],
        "stride_w": step[1],
        "pad_top": before(source[1], target[1], kernel[0], step[0]) if same else 0,
        "pad_left": before(source[2], target[2], kernel[1], step[1]) if same else 0,
        "low": low,
        "high": high,
    }
    function = {"AVERAGE_POOL_2D": "ek_average_pool", "MAX_POOL_2D": "ek_max_pool"}[op.kind]
    ends = (op.index(0), op.op.outputs[0])
    call = Call(function=function, struct="ek_pool_t", fields=fields, tensors=ends, source="ek_pool.c")
    return Step(kind=op.kind, calls=(call,), inputs=ends[:1], outputs=ends[1:])


def mean(op: Bound) -> Step:
    """The sum times (input scale / output scale / count), as one multiplier."""
    shape = op.input(0).shape
    axes = {int(axis) % len(shape) for axis in np.atleast_1d(op.constant(1)).tolist()}
    if len(shape) > 5:
        op.refuse("has more than five dimensions")
    (scale, zero), (out_scale, out_zero) = op.quantization(op.input(0)), op.quantization(op.output())
    op.require(count(shape) == count(op.output().shape) * count([shape[a] for a in axes]), "has other shapes")
    number = count([shape[axis] for axis in axes])
    multiplier, shift = _divided(*multiplier_of(scale / out_scale), number)
    steps = strides(shape)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    over = sorted(axes)
    fields = {
        "kept": padded([shape[axis] for axis in kept], 1),
        "kept_stride": padded([steps[axis] for axis in kept], 0),
        "over": padded([shape[axis] for axis in over], 1),
        "over_stride": padded([steps[axis] for axis in over], 0),
        "in_zero": zero,
        "out_zero": out_zero,
        "count": number,
        "multiplier": multiplier,
        "shift": shift,
    }
    ends = (op.index(0), op.op.outputs[0])
    call = Call(function="ek_mean", struct="ek_mean_t", fields=fields, tensors=ends, source="ek_mean.c")
    return Step(kind=op.kind, calls=(call,), inputs=ends[:1], outputs=ends[1:])


def _divided(multiplier: int, shift: int, number: int) -> tuple[int, int]:
    """The multiplier divided by `number`, which is brought to at most two by the shift first."""
    bits = min(number.bit_length() - 1, 32, 31 + shift)
    return min((multiplier << bits) // number, INT32_MAX), shift - bits


def softmax(op: Bound) -> Step:
    """Along the last dimension, which is all that TFLite has; the output's scale is given."""
    scale, _ = op.quantization(op.input(0))
    if op.quantization(op.output()) != (1 / 256, -128):
        op.refuse("has another output scale than 1/256 from -128")
    shape = op.input(0).shape
    op.require(shape == op.output().shape and len(shape) > 0, "changes the shape")
    table = np.array(softmax_exponents(scale, float(op.option("beta", 1.0))), np.int32)
    fields = {
        "rows": count(shape[:-1]),
        "depth": shape[-1],
        "exponents": Data(ctype="int32_t", values=table),
    }
    ends = (op.index(0), op.op.outputs[0])
    call = Call(
        function="ek_softmax", struct="ek_softmax_t", fields=fields, tensors=ends, source="ek_softmax.c"
    )
    return Step(kind=op.kind, calls=(call,), inputs=ends[:1], outputs=ends[1:], in_place=(0,))


OPS = {"AVERAGE_POOL_2D": pool, "MAX_POOL_2D": pool, "MEAN": mean, "SOFTMAX": softmax}
