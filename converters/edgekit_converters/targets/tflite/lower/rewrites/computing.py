"""Rewrites of ops that compute: floats by the same arithmetic, integers where nothing is rounded twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.targets.tflite.lower.arrays import dequantized
from edgekit_converters.targets.tflite.lower.emitter import Emitter
from edgekit_converters.targets.tflite.lower.rewrites.moving import Fields, Rewrite, cut, joined
from edgekit_converters.targets.tflite.lower.tensors import Quant, Spec, Tensor, known

_SAME, _VALID = 0, 1
_BOUNDS = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}


def clamped(e: Emitter, tensor: Tensor, kind: str) -> Tensor:
    """The activation `kind` by MAXIMUM and MINIMUM, on the tensor's own grid where it has one."""
    low, high = _BOUNDS[kind]
    tensor = e.binary_like("MAXIMUM", tensor, _number(e, tensor, low))
    return tensor if high == np.inf else e.binary_like("MINIMUM", tensor, _number(e, tensor, high))


def _number(e: Emitter, tensor: Tensor, value: float) -> Tensor:
    """A scalar of the tensor's type and scale."""
    quant = tensor.quant
    if quant is None:
        return e.const(np.array(value, tensor.dtype.numpy()))
    ends = np.iinfo(tensor.dtype.numpy())
    steps = np.rint(value / quant.scale[0]) + quant.zero_point[0]
    return e.const(np.array(np.clip(steps, ends.min, ends.max), tensor.dtype.numpy()), quant=quant)


def _floats(inputs: list[Tensor | None], outputs: list[Spec]) -> bool:
    given = [item for item in inputs if item is not None]
    return given[0].dtype is ir.DataType.FLOAT and outputs[0].dtype is ir.DataType.FLOAT


def _first(inputs: list[Tensor | None]) -> Tensor:
    assert inputs[0] is not None
    return inputs[0]


def relu_n1(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Clamped; only on one grid, a change of it would round."""
    x = _first(inputs)
    return [clamped(e, x, "relu_n1_to_1")] if x.quant == outputs[0].quant else None


def absolute(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """max(x, -x)."""
    if not _floats(inputs, outputs):
        return None
    x = _first(inputs)
    return [e.binary("MAXIMUM", x, e.binary("MUL", x, _number(e, x, -1.0)))]


def square(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """x · x."""
    x = _first(inputs)
    return [e.binary("MUL", x, x)] if _floats(inputs, outputs) else None


def power(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """The second power only."""
    exponent = e.value(inputs[1])
    return square(e, inputs, outputs, fields) if exponent is not None and (exponent == 2).all() else None


def squared_difference(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """(a - b)²."""
    if not _floats(inputs, outputs) or inputs[1] is None:
        return None
    gap = e.binary("SUB", _first(inputs), inputs[1])
    return [e.binary("MUL", gap, gap)]


def prelu(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """max(x, 0) + slope · min(x, 0)."""
    if not _floats(inputs, outputs) or inputs[1] is None:
        return None
    x = _first(inputs)
    zero = _number(e, x, 0.0)
    below = e.binary("MUL", e.binary("MINIMUM", x, zero), inputs[1])
    return [e.binary("ADD", e.binary("MAXIMUM", x, zero), below)]


def elu(e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields) -> list[Tensor] | None:
    """max(x, 0) + (exp(min(x, 0)) - 1): one of the two is always nothing."""
    if not _floats(inputs, outputs):
        return None
    x = _first(inputs)
    zero = _number(e, x, 0.0)
    below = e.binary("SUB", e.unary("EXP", e.binary("MINIMUM", x, zero)), _number(e, x, 1.0))
    return [e.binary("ADD", e.binary("MAXIMUM", x, zero), below)]


def total(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """The mean times how many there are."""
    x, axes = _first(inputs), e.value(inputs[1])
    shape = known(x.shape)
    if not _floats(inputs, outputs) or axes is None or shape is None:
        return None
    count = float(np.prod([shape[axis] for axis in axes.reshape(-1)]))
    mean = e.emit("MEAN", inputs, outputs[0], **fields)
    return [e.binary("MUL", mean, _number(e, mean, count))]


def largest(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """A pool over neighbouring axes made one; integers are compared, not computed."""
    x, axes = _first(inputs), e.value(inputs[1])
    shape = known(x.shape)
    if axes is None or shape is None or x.quant != outputs[0].quant:
        return None
    places = sorted(int(axis) % x.rank for axis in axes.reshape(-1))
    if not places or places != list(range(places[0], places[-1] + 1)):
        return None
    before, count = int(np.prod(shape[: places[0]])), int(np.prod([shape[axis] for axis in places]))
    image = e.reshape(x, (before, count, 1, int(np.prod(shape[places[-1] + 1 :]))))
    window = {"filterHeight": count, "filterWidth": 1, "strideH": 1, "strideW": 1, "padding": _VALID}
    flat = image.spec((before, 1, 1, image.shape[3]))
    return [e.reshape(e.emit("MAX_POOL_2D", [image], flat, **window), outputs[0].shape)]


def smallest(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """-max(-x)."""
    if not _floats(inputs, outputs):
        return None
    x = _first(inputs)
    minus = e.binary("MUL", x, _number(e, x, -1.0))
    found = largest(e, [minus, inputs[1]], outputs, fields)
    return None if found is None else [e.binary("MUL", found[0], _number(e, x, -1.0))]


def matmul(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """With one matrix known: FULLY_CONNECTED, on the other transposed where the known one stands left."""
    left, right = inputs
    if (
        left is None
        or right is None
        or not _floats(inputs, outputs)
        or fields.get("adjX")
        or fields.get("adjY")
    ):
        return None
    matrix, shape = e.value(right), known(outputs[0].shape)
    if shape is None:
        return None
    if matrix is not None and matrix.ndim == 2:
        return [e.reshape(_product(e, left, matrix.T), shape)]
    matrix = e.value(left)
    if matrix is None or matrix.ndim != 2:
        return None
    swapped = (*range(right.rank - 2), right.rank - 1, right.rank - 2)
    turned = _product(e, e.transpose(right, swapped), matrix)
    back = e.reshape(turned, (*shape[:-2], shape[-1], shape[-2]))
    return [e.transpose(back, (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2))]


def _product(e: Emitter, x: Tensor, rows: Any) -> Tensor:
    """x (..., K) by the matrix `rows` (N, K), as (all others, N)."""
    flat = e.reshape(x, (int(np.prod(known(x.shape[:-1]) or (1,))), x.shape[-1]))
    matrix = e.const(np.ascontiguousarray(rows), name="matrix")
    zero = e.const(np.zeros(len(rows), np.float32), name="zero_bias")
    return e.emit("FULLY_CONNECTED", [flat, matrix, zero], flat.spec((flat.shape[0], len(rows))))


def dense(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Two axes only; a scale a row is a convolution over images of one pixel, the same sums."""
    x, weights, bias = _first(inputs), inputs[1], inputs[2]
    rows = known(x.shape)
    if weights is None or bias is None or rows is None:
        return None
    outs = weights.shape[0]
    if fields.pop("keepNumDims", False):
        flat = e.reshape(x, (int(np.prod(rows[:-1])), rows[-1]))
        spec = Spec((flat.shape[0], outs), outputs[0].dtype, outputs[0].quant)
        return [e.reshape(e.emit("FULLY_CONNECTED", [flat, weights, bias], spec, **fields), outputs[0].shape)]
    taps, quant = e.value(weights), weights.quant
    if taps is None or quant is None or not quant.per_channel:
        return None
    pixels = e.reshape(x, (int(np.prod(rows)) // taps.shape[1], 1, 1, taps.shape[1]))
    filters = e.const(taps.reshape(len(taps), 1, 1, -1), quant=Quant(quant.scale, quant.zero_point, 0))
    spec = Spec((pixels.shape[0], 1, 1, outs), outputs[0].dtype, outputs[0].quant)
    made = e.emit(
        "CONV_2D",
        [pixels, filters, bias],
        spec,
        padding=_VALID,
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
        fusedActivationFunction=fields.get("fusedActivationFunction", 0),
    )
    return [e.reshape(made, outputs[0].shape)]


def grouped(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """One convolution a group, side by side; every sum is the same."""
    x, kernel, bias = _first(inputs), inputs[1], inputs[2]
    taps, added = e.value(kernel), e.value(bias)
    if kernel is None or bias is None or taps is None or added is None or x.shape[3] is None:
        return None
    depth, count = taps.shape[3], x.shape[3] // taps.shape[3]
    each = len(taps) // count
    if count < 2 or x.shape[3] % depth or len(taps) % count:
        return None
    made = []
    for group in range(count):
        rows = slice(group * each, (group + 1) * each)
        part = e.const(np.ascontiguousarray(taps[rows]), quant=_part(kernel.quant, rows))
        zero = e.const(np.ascontiguousarray(added[rows]), quant=_part(bias.quant, rows))
        source = cut(e, x, 3, group * depth, depth)
        spec = Spec((*outputs[0].shape[:3], each), outputs[0].dtype, outputs[0].quant)
        made.append(e.emit("CONV_2D", [source, part, zero], spec, **fields))
    return [joined(e, made, 3)]


def _part(quant: Quant | None, rows: slice) -> Quant | None:
    if quant is None or not quant.per_channel:
        return quant
    return Quant(quant.scale[rows], quant.zero_point[rows], quant.axis)


def average(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """A depthwise convolution by 1/n whose bias is a hair above nothing.

    The mean of an even number of integers may lie just between two, and runtimes round that either way. With
    the hair (1/127 of a step over n) it never lies there, and everybody rounds up.
    """
    x, quant = _first(inputs), _first(inputs).quant
    high, wide = int(fields["filterHeight"]), int(fields["filterWidth"])
    shape, depth = known(x.shape), x.shape[3]
    if quant is None or shape is None or depth is None or x.dtype is not ir.DataType.INT8:
        return None
    steps = int(fields["strideH"]), int(fields["strideW"])
    fits = (shape[1] - high) // steps[0] + 1, (shape[2] - wide) // steps[1] + 1
    if fits != outputs[0].shape[1:3]:  # padding does not count, and the edge has other divisors
        return None
    scale = float(np.float32(1 / (127 * high * wide)))
    taps = e.const(np.full((1, high, wide, depth), 127, np.int8), quant=Quant((scale,), (0,), 0))
    hair = e.const(np.ones(depth, np.int32), quant=Quant((scale * quant.scale[0],), (0,), 0))
    options = {"padding": _VALID, "strideH": steps[0], "strideW": steps[1], "depthMultiplier": 1}
    more = {"dilationHFactor": 1, "dilationWFactor": 1}
    activation = {"fusedActivationFunction": fields.get("fusedActivationFunction", 0)}
    return [e.emit("DEPTHWISE_CONV_2D", [x, taps, hair], outputs[0], **options, **more, **activation)]


def folded(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """A constant that is dequantized is a constant of floats."""
    array, quant = e.value(inputs[0]), _first(inputs).quant
    if array is None or quant is None:
        return None
    return [e.const(dequantized(array, quant).astype(np.float32))]


def transpose_conv(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Without a bias (added after it, floats only), and the whole result cut instead of SAME."""
    if len(inputs) == 4:
        if not _floats([inputs[2]], outputs) or inputs[3] is None:
            return None
        plain = e.emit("TRANSPOSE_CONV", inputs[:3], outputs[0], **{**fields, "fusedActivationFunction": 0})
        return [e.binary("ADD", plain, inputs[3])]
    kernel, x, shape = inputs[1], inputs[2], known(outputs[0].shape)
    if kernel is None or x is None or shape is None or fields.get("padding") != _SAME:
        return None
    sizes = known((*x.shape[1:3], *kernel.shape[1:3]))
    if sizes is None:
        return None
    steps = (int(fields["strideH"]), int(fields["strideW"]))
    full = [(sizes[i] - 1) * steps[i] + sizes[2 + i] for i in (0, 1)]
    if any(size < kept for size, kept in zip(full, shape[1:3], strict=True)):
        return None
    whole = (shape[0], *full, shape[3])
    spec = Spec(whole, outputs[0].dtype, outputs[0].quant)
    made = e.emit("TRANSPOSE_CONV", [e.ints(whole), kernel, x], spec, **{**fields, "padding": _VALID})
    for axis in (1, 2):
        made = cut(e, made, axis, (full[axis - 1] - shape[axis]) // 2, shape[axis])
    return [made]


REWRITES: dict[str, Rewrite] = {
    "RELU_N1_TO_1": relu_n1,
    "ABS": absolute,
    "SQUARE": square,
    "POW": power,
    "SQUARED_DIFFERENCE": squared_difference,
    "PRELU": prelu,
    "ELU": elu,
    "SUM": total,
    "REDUCE_MAX": largest,
    "REDUCE_MIN": smallest,
    "BATCH_MATMUL": matmul,
    "FULLY_CONNECTED": dense,
    "CONV_2D": grouped,
    "AVERAGE_POOL_2D": average,
    "DEQUANTIZE": folded,
    "TRANSPOSE_CONV": transpose_conv,
}
