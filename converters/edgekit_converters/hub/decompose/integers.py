"""Products of whole numbers, and operations on their bits, in terms of arithmetic.

Sums of products stay below 2²⁴ in float32, so that they are exact: long ones are cut into pieces that
are added as int32. Specification: Operators.md, MatMulInteger 10, ConvInteger 10, QLinearMatMul 21,
QLinearConv 10, BitShift 11, BitwiseAnd 18.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    attr_int,
    attr_ints,
    attr_str,
    dims,
    numpy_dtype,
    operand,
    rank,
    required,
    static_shape,
)

# 255 · 255 · 256 < 2²⁴
_EXACT = 256
_FLOAT, _INT32, _INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64
_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
_ATTRIBUTES = ("kernel_shape", "strides", "dilations", "pads")


def _shifted(b: Builder, x: ir.Value, zero: ir.Value | None, axis: int | None = None) -> ir.Value:
    """x − zero point, in float32; a zero point for each element of `axis` is put there."""
    wide = b.cast(x, _FLOAT)
    if zero is None:
        return wide
    point = b.cast(zero, _FLOAT)
    sizes, size = static_shape(zero), rank(x)
    if sizes is not None and len(sizes) == 1 and axis is not None and size is not None:
        axis %= size
        point = b.reshape(point, *[-1 if place == axis else 1 for place in range(size)])
    return b("Sub", wide, point)


def _product(b: Builder, x: ir.Value, y: ir.Value) -> ir.Value | None:
    """The matrix product of whole numbers in float32, as int32."""
    sizes, size = dims(x), rank(y)
    if sizes is None or size is None or sizes[-1] is None:
        return None
    found: ir.Value | None = None
    for start in range(0, sizes[-1], _EXACT):
        end = min(start + _EXACT, sizes[-1])
        left, right = x, y
        if sizes[-1] > _EXACT:
            left, right = b.slice(x, len(sizes) - 1, start, end), b.slice(y, max(size - 2, 0), start, end)
        part = b.cast(b("MatMul", left, right), _INT32)
        found = part if found is None else b("Add", found, part)
    return found


@rule("MatMulInteger")
def matmul_integer(node: ir.Node, b: Builder) -> Result:
    """The product of the shifted operands."""
    x = _shifted(b, required(node, 0), operand(node, 2), -2)
    return _product(b, x, _shifted(b, required(node, 1), operand(node, 3), -1))


@rule("QLinearMatMul")
def qlinear_matmul(node: ir.Node, b: Builder) -> Result:
    """The product in int32, rescaled."""
    x, x_scale, x_zero, y, y_scale, y_zero, scale, zero = (required(node, index) for index in range(8))
    if x.dtype not in _BYTES or y.dtype not in _BYTES or any((rank(s) or 0) > 1 for s in (x_scale, y_scale)):
        return None
    whole = _product(b, _shifted(b, x, x_zero, -2), _shifted(b, y, y_zero, -1))
    if whole is None:
        return None
    left = b.cast(x_scale, _FLOAT)
    if static_shape(x_scale) not in ((), (1,)):
        left = b.reshape(left, -1, 1)
    factor = b("Div", b("Mul", left, b.cast(y_scale, _FLOAT)), b.cast(scale, _FLOAT))
    return _requantized(b, whole, factor, zero)


def _requantized(b: Builder, whole: ir.Value, factor: ir.Value, zero: ir.Value) -> ir.Value:
    """Times the factor, rounded half to even, moved by the zero point and held in its range."""
    limits = np.iinfo(numpy_dtype(zero))
    moved = b("Add", b("Round", b("Mul", b.cast(whole, _FLOAT), factor)), b.cast(zero, _FLOAT))
    return b.cast(b("Clip", moved, float(limits.min), float(limits.max)), zero.dtype)


def _convolved(node: ir.Node, b: Builder, x: ir.Value, weight: ir.Value) -> ir.Value | None:
    """A convolution of whole numbers in float32, as int32; long ones by pieces of the channels."""
    sizes, groups = static_shape(weight), attr_int(node, "group", 1)
    given = {name: attr_ints(node, name) for name in _ATTRIBUTES}
    if sizes is None or "auto_pad" in node.attributes:
        return None
    area = int(np.prod(sizes[2:]))
    if sizes[1] * area <= _EXACT:
        return b.cast(b("Conv", x, weight, group=groups, **given), _INT32)
    step = _EXACT // area
    if groups > 1 or step == 0:
        return None
    found: ir.Value | None = None
    for start in range(0, sizes[1], step):
        end = min(start + step, sizes[1])
        part = b("Conv", b.slice(x, 1, start, end), b.slice(weight, 1, start, end), **given)
        found = b.cast(part, _INT32) if found is None else b("Add", found, b.cast(part, _INT32))
    return found


@rule("ConvInteger")
def conv_integer(node: ir.Node, b: Builder) -> Result:
    """The convolution of the shifted operands; pads are the zero point, so 0 after shifting."""
    x = _shifted(b, required(node, 0), operand(node, 2))
    return _convolved(node, b, x, _shifted(b, required(node, 1), operand(node, 3), 0))


@rule("QLinearConv")
def qlinear_conv(node: ir.Node, b: Builder) -> Result:
    """The convolution in int32, plus the bias, rescaled."""
    x, x_scale, x_zero, weight, w_scale, w_zero, scale, zero = (required(node, i) for i in range(8))
    bias, size = operand(node, 8), rank(x)
    if size is None:
        return None
    whole = _convolved(node, b, _shifted(b, x, x_zero), _shifted(b, weight, w_zero, 0))
    if whole is None:
        return None
    ones = [1] * (size - 2)
    if bias is not None:
        whole = b("Add", whole, b.reshape(bias, -1, *ones))
    factor = b("Div", b("Mul", x_scale, w_scale), scale)
    if static_shape(w_scale) not in ((), (1,)):
        factor = b.reshape(factor, -1, *ones)
    return _requantized(b, whole, factor, zero)


@rule("BitShift")
def bit_shift(node: ir.Node, b: Builder) -> Result:
    """Times or over a power of two, in int64."""
    x, by = required(node, 0), required(node, 1)
    bits = numpy_dtype(x).itemsize * 8
    if bits > 32:
        return None
    powers = b.const(np.left_shift(np.int64(1), np.arange(bits, dtype=np.int64)))
    factor = b("Gather", powers, b.cast(by, _INT64), axis=0)
    if attr_str(node, "direction") == "RIGHT":
        return b.cast(b("Div", b.cast(x, _INT64), factor), x.dtype)
    moved = b("Mod", b("Mul", b.cast(x, _INT64), factor), 2**bits)
    return b.cast(moved, x.dtype)


@rule("BitwiseNot")
def bitwise_not(node: ir.Node, b: Builder) -> Result:
    """−1 − x; of unsigned numbers the largest less x."""
    x = required(node, 0)
    kind = numpy_dtype(x)
    if kind.itemsize == 8 and kind.kind == "u":
        return None
    wide = b.cast(x, _INT64)
    return b.cast(b("Sub", int(np.iinfo(kind).max) if kind.kind == "u" else -1, wide), x.dtype)


@rule("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(node: ir.Node, b: Builder) -> Result:
    """Bit by bit: and is the product of bits; a + b − and is or, less and once more is xor."""
    x, y = required(node, 0), required(node, 1)
    kind = numpy_dtype(x)
    bits = kind.itemsize * 8
    if bits > 32:
        return None
    work = _INT64 if kind == np.uint32 else _INT32
    left, right = b.cast(x, work), b.cast(y, work)
    both: ir.Value | None = None
    rests = [left, right]
    for bit in range(bits):
        ones = [b("Mod", rest, 2) for rest in rests]
        weight = -(2**bit) if bit == bits - 1 and kind.kind == "i" else 2**bit
        part = b("Mul", b("Mul", *ones), weight)
        both = part if both is None else b("Add", both, part)
        rests = [b("Div", b("Sub", rest, one), 2) for rest, one in zip(rests, ones, strict=True)]
    assert both is not None
    if node.op_type == "BitwiseAnd":
        return b.cast(both, x.dtype)
    # Differences first: no sum leaves the type's range.
    other = b("Sub", right, both)
    if node.op_type == "BitwiseOr":
        return b.cast(b("Add", left, other), x.dtype)
    return b.cast(b("Add", b("Sub", left, both), other), x.dtype)
