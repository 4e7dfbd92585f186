"""Bitwise ops on whole numbers, which MIL has not: sums over the bits, sixteen at a time.

Specification: onnx/docs/Operators.md. Everything is int32 arithmetic that cannot overflow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.targets.coreml.lower.node import Node, Var
from edgekit_converters.targets.coreml.lower.ops.arithmetic import floor_mod, wrapped
from edgekit_converters.targets.coreml.lower.registry import lowers

_POWERS = np.array([1 << n for n in range(16)], np.int32)

_BITS: dict[str, Callable[[Var, Var], Var]] = {
    "BitwiseAnd": lambda a, b: mb.mul(x=a, y=b),
    "BitwiseOr": lambda a, b: mb.maximum(x=a, y=b),
    "BitwiseXor": lambda a, b: mb.abs(x=mb.sub(x=a, y=b)),
}


@lowers(*_BITS)
def _bitwise(node: Node) -> Var:
    x, y = node.var(0), node.var(1)
    if max(x.rank, y.rank) > 4:
        node.refuse("more than four axes", "rank_above_five")
    function = _BITS[node.op]
    low = _combined(floor_mod(x, np.int32(1 << 16)), floor_mod(y, np.int32(1 << 16)), function)
    above = [floor_mod(mb.floor_div(x=item, y=np.int32(1 << 16)), np.int32(1 << 16)) for item in (x, y)]
    high = _combined(above[0], above[1], function)
    return mb.add(x=mb.mul(x=wrapped(high, 16, True), y=np.int32(1 << 16)), y=low)


def _combined(x: Var, y: Var, function: Callable[[Var, Var], Var]) -> Var:
    """`function` of the bits of two numbers in [0, 65536)."""
    bits = function(_bits(x), _bits(y))
    return mb.reduce_sum(x=mb.mul(x=bits, y=_POWERS), axes=[-1], keep_dims=False)


def _bits(x: Var) -> Var:
    spread = mb.floor_div(x=mb.expand_dims(x=x, axes=[-1]), y=_POWERS)
    return floor_mod(spread, np.int32(2))


@lowers("BitwiseNot")
def _not(node: Node) -> Var:
    width = node.width()
    if width is not None and not width[1]:
        if width[0] > 16:
            node.refuse("uint32 and uint64", "unsupported_type")
        return mb.sub(x=np.int32((1 << width[0]) - 1), y=node.var(0))
    return mb.sub(x=np.int32(-1), y=node.var(0))


@lowers("BitShift")
def _shift(node: Node) -> Var:
    x, y, width = node.var(0), node.var(1), node.width()
    factor = mb.pow(x=np.int32(2), y=y)
    if node.text("direction") == "RIGHT":
        return mb.floor_div(x=x, y=factor)
    if width is None or width[0] > 16:
        node.refuse("shifting 32 bits to the left", "unsupported_type")
    return wrapped(mb.mul(x=x, y=factor), *width)
