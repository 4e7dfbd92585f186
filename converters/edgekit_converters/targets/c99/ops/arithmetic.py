"""ADD, SUB, MUL, MAXIMUM and MINIMUM, with one operand repeated where shapes differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit_converters.targets.c99.fixed import multiplier_of
from edgekit_converters.targets.c99.steps import DIMS, Bound, Call, Step, padded, strides

_LEFT = 20
"""Sums are computed with so many bits more."""


def add(op: Bound) -> Step:
    """Both operands at twice the larger scale, 2^20 times finer, then the output's scale."""
    (a_scale, _), (b_scale, _) = op.quantization(op.input(0)), op.quantization(op.input(1))
    out_scale, _ = op.quantization(op.output())
    twice = 2 * max(a_scale, b_scale)
    a, b = multiplier_of(a_scale / twice), multiplier_of(b_scale / twice)
    both = multiplier_of(twice / ((1 << _LEFT) * out_scale))
    fields = {
        "sign": -1 if op.kind == "SUB" else 1,
        "left_shift": _LEFT,
        "a_multiplier": a[0],
        "a_shift": a[1],
        "b_multiplier": b[0],
        "b_shift": b[1],
        "multiplier": both[0],
        "shift": both[1],
    }
    return _step(op, "ek_add", fields)


def mul(op: Bound) -> Step:
    """The product of the integers, at the product of the scales."""
    (a_scale, _), (b_scale, _) = op.quantization(op.input(0)), op.quantization(op.input(1))
    multiplier, shift = multiplier_of(a_scale * b_scale / op.quantization(op.output())[0])
    return _step(op, "ek_mul", {"multiplier": multiplier, "shift": shift})


def extreme(op: Bound) -> Step:
    """The larger or the smaller one; all three share a scale."""
    scales = {op.quantization(item) for item in (op.input(0), op.input(1), op.output())}
    op.require(len(scales) == 1, "changes the scale")
    return _step(op, {"MAXIMUM": "ek_max", "MINIMUM": "ek_min"}[op.kind], {})


def _step(op: Bound, function: str, fields: dict[str, Any]) -> Step:
    shape = op.output().shape
    if len(shape) > DIMS:
        op.refuse(f"has more than {DIMS} dimensions")
    pairs = zip(*(padded(op.input(place).shape, 1) for place in (0, 1)), strict=True)
    op.require(padded(shape, 1) == [max(pair) for pair in pairs], "has shapes that do not fit")
    low, high = op.limits()
    steps = [_repeated(op, op.input(place).shape, shape) for place in (0, 1)]
    common = {
        "size": padded(shape, 1),
        "stride_a": padded(steps[0], 0),
        "stride_b": padded(steps[1], 0),
        "a_zero": op.quantization(op.input(0))[1],
        "b_zero": op.quantization(op.input(1))[1],
        "out_zero": op.quantization(op.output())[1],
        "low": low,
        "high": high,
    }
    tensors = (op.index(0), op.index(1), op.op.outputs[0])
    call = Call(
        function=function,
        struct="ek_binary_t",
        fields={**common, **fields},
        tensors=tensors,
        source="ek_binary.c",
    )
    whole = tuple(place for place in (0, 1) if op.input(place).shape == shape)
    return Step(kind=op.kind, calls=(call,), inputs=tensors[:2], outputs=tensors[2:], in_place=whole)


def _repeated(op: Bound, shape: Sequence[int], target: Sequence[int]) -> list[int]:
    """Strides of `shape` under `target`; 0 where it is repeated."""
    aligned = [1] * (len(target) - len(shape)) + list(shape)
    if any(size not in (1, whole) for size, whole in zip(aligned, target, strict=True)):
        op.refuse(f"has shapes that do not fit: {list(shape)} and {list(target)}")
    steps = strides(aligned)
    return [step if size > 1 else 0 for step, size in zip(steps, aligned, strict=True)]


OPS = {"ADD": add, "SUB": add, "MUL": mul, "MAXIMUM": extreme, "MINIMUM": extreme}
