"""Element by element: arithmetic, comparison, logic, choice. Specification: onnx/docs/Operators.md.

Whole numbers narrower than int32 wrap around as in ONNX (done by hand); uint32 and uint64 arithmetic is
refused, since int32 wraps elsewhere. int64 arithmetic is int32 arithmetic: what leaves 32 bits is lost,
which is why the boundary checks the range of what comes in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.targets.coreml.lower.node import (
    Node,
    Var,
    as_bool,
    as_float,
    as_int,
    choose,
    is_bool,
    is_float,
    like,
)
from edgekit_converters.targets.coreml.lower.registry import lowers


def wrapped(var: Var, bits: int, signed: bool) -> Var:
    """`var` modulo 2^bits, in the signed or unsigned range."""
    size = 1 << bits
    low = floor_mod(var, np.int32(size))
    if not signed:
        return low
    return choose(mb.greater_equal(x=low, y=np.int32(size // 2)), mb.sub(x=low, y=np.int32(size)), low)


def floor_mod(x: Var, y: Any) -> Var:
    """The remainder with the sign of `y`, for whole numbers: only exact ops."""
    return mb.sub(x=x, y=mb.mul(x=mb.floor_div(x=x, y=y), y=y))


def truncated_div(x: Var, y: Var) -> Var:
    """Whole-number division towards zero, as ONNX has it (`floor_div` rounds down)."""
    quotient = mb.floor_div(x=mb.abs(x=x), y=mb.abs(x=y))
    return mb.mul(x=quotient, y=mb.mul(x=mb.sign(x=x), y=mb.sign(x=y)))


def _fitted(node: Node, var: Var) -> Var:
    """The result of whole-number arithmetic in the node's own width."""
    width = node.width()
    if width is None:
        return var
    bits, signed = width
    if bits == 32 or bits == 64:
        node.refuse("arithmetic of uint32 and uint64", "unsupported_type")
    return wrapped(var, bits, signed)


_SIMPLE = {"Add": mb.add, "Sub": mb.sub, "Mul": mb.mul}


@lowers("Add", "Sub", "Mul")
def _arithmetic(node: Node) -> Var:
    if node.op == "Mul" and node.width() == (16, False):
        node.refuse("products of uint16 need more than 32 bits", "unsupported_type")
    return _fitted(node, _SIMPLE[node.op](x=node.var(0), y=node.var(1)))


@lowers("Div")
def _div(node: Node) -> Var:
    x, y = node.var(0), node.var(1)
    return mb.real_div(x=x, y=y) if is_float(x) else truncated_div(x, y)


@lowers("Mod")
def _mod(node: Node) -> Var:
    x, y = node.var(0), node.var(1)
    if not node.integer("fmod"):
        return mb.mod(x=x, y=y) if is_float(x) else floor_mod(x, y)
    if not is_float(x):
        return mb.sub(x=x, y=mb.mul(x=truncated_div(x, y), y=y))
    return mb.mul(x=mb.mod(x=mb.abs(x=x), y=mb.abs(x=y)), y=mb.sign(x=x))


@lowers("Pow")
def _pow(node: Node) -> Var:
    x, y = node.var(0), node.var(1)
    if is_float(x):
        return mb.pow(x=x, y=as_float(y))
    if is_float(y):
        exponent = node.need(1)
        if np.any(exponent != np.floor(exponent)) or np.any(exponent < 0):
            node.refuse("a whole number to a fractional power", "unsupported_type")
        y = mb.const(val=exponent.astype(np.int32))
    one = mb.equal(x=mb.abs(x=x), y=np.int32(1))
    upright = mb.pow(x=x, y=mb.maximum(x=y, y=np.int32(0)))
    odd = mb.equal(x=floor_mod(y, np.int32(2)), y=np.int32(1))
    tiny = choose(one, choose(odd, x, np.int32(1)), np.int32(0))
    negative = mb.less(x=y, y=np.int32(0))
    return _fitted(node, upright if node.constant(1) is not None else choose(negative, tiny, upright))


@lowers("Neg")
def _neg(node: Node) -> Var:
    x = node.var(0)
    return mb.mul(x=x, y=np.float32(-1)) if is_float(x) else _fitted(node, mb.mul(x=x, y=np.int32(-1)))


@lowers("Abs")
def _abs(node: Node) -> Var:
    return _fitted(node, mb.abs(x=node.var(0)))


@lowers("Sign")
def _sign(node: Node) -> Var:
    return mb.sign(x=node.var(0))


@lowers("Max", "Min")
def _extreme(node: Node) -> Var:
    function = mb.maximum if node.op == "Max" else mb.minimum
    found, *rest = node.vars()
    for other in rest:
        found = function(x=found, y=other)
    return found


@lowers("Sum", "Mean")
def _sum(node: Node) -> Var:
    terms = node.vars()
    found = terms[0]
    for other in terms[1:]:
        found = mb.add(x=found, y=other)
    return found if node.op == "Sum" else mb.real_div(x=found, y=np.float32(len(terms)))


_COMPARE = {
    "Equal": mb.equal,
    "Greater": mb.greater,
    "GreaterOrEqual": mb.greater_equal,
    "Less": mb.less,
    "LessOrEqual": mb.less_equal,
}


@lowers(*_COMPARE)
def _compare(node: Node) -> Var:
    x, y = node.var(0), node.var(1)
    return _COMPARE[node.op](x=as_int(x), y=as_int(y))


_LOGIC = {"And": mb.logical_and, "Or": mb.logical_or, "Xor": mb.logical_xor}


@lowers(*_LOGIC)
def _logic(node: Node) -> Var:
    return _LOGIC[node.op](x=node.var(0), y=node.var(1))


@lowers("Not")
def _not(node: Node) -> Var:
    return mb.logical_not(x=node.var(0))


@lowers("Where")
def _where(node: Node) -> Var:
    return choose(node.var(0), node.var(1), node.var(2))


@lowers("Clip")
def _clip(node: Node) -> Var:
    x, low, high = node.var(0), node.constant(1), node.constant(2)
    if is_float(x) and low is not None and high is not None and float(low) < float(high):
        return mb.clip(x=x, alpha=np.float32(low), beta=np.float32(high))
    x = mb.maximum(x=x, y=node.var(1)) if node.has(1) else x
    return mb.minimum(x=x, y=node.var(2)) if node.has(2) else x


@lowers("IsNaN")
def _is_nan(node: Node) -> Var:
    return mb.not_equal(x=node.var(0), y=node.var(0))


@lowers("IsInf")
def _is_inf(node: Node) -> Var:
    x = node.var(0)
    above, below = node.integer("detect_positive", 1), node.integer("detect_negative", 1)
    if above and below:
        return mb.equal(x=mb.abs(x=x), y=np.float32(np.inf))
    if not above and not below:
        return mb.logical_and(x=mb.equal(x=x, y=x), y=np.bool_(False))
    return mb.equal(x=x, y=np.float32(np.inf if above else -np.inf))


@lowers("Cast")
def _cast(node: Node) -> Var:
    x, wanted = node.var(0), node.raw.outputs[0].dtype
    kind = "" if wanted is None else wanted.name
    if kind == "BOOL":
        return as_bool(x)
    if kind == "FLOAT":
        return as_float(x)
    if kind in ("FLOAT16", "BFLOAT16"):
        return _half(node, as_float(x), kind)
    if kind in ("INT32", "INT64", "UINT32", "UINT64"):
        if kind[0] == "U" and not is_bool(x) and node.width() is None:
            node.refuse(f"to {kind}: a negative number would wrap around", "unsupported_type")
        return mb.cast(x=x, dtype="int32")
    if kind in ("INT8", "UINT8", "INT16", "UINT16"):
        whole, bits = mb.cast(x=x, dtype="int32"), int(kind.lstrip("UINT"))
        return whole if is_bool(x) else wrapped(whole, bits, kind[0] != "U")
    node.refuse(f"to {kind or 'an unknown type'}", "unsupported_type")


def _half(node: Node, x: Var, kind: str) -> Var:
    """Rounded to float16 and held in float32 again."""
    if kind == "BFLOAT16":
        node.refuse("Core ML does not round to bfloat16", "unsupported_type")
    return mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32")


@lowers("PRelu")
def _prelu(node: Node) -> Var:
    x, slope = node.var(0), node.constant(1)
    if slope is not None and is_float(x) and 3 <= x.rank <= 5:
        channels = x.shape[1]
        if slope.shape == (channels, *[1] * (x.rank - 2)):
            return mb.prelu(x=x, alpha=node.weight(1).reshape(-1))
    return choose(mb.less(x=x, y=like(x, 0)), mb.mul(x=x, y=node.var(1)), x)
