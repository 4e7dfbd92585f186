"""What an operation becomes: calls of kernels with constant parameters, on tensors by their index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from edgekit_converters.errors import Refusal
from edgekit_converters.frontends.tflite_model.reader import Array, File, Op, Stored

_ACTIVATIONS = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""Fused activations that are limits: none, RELU, RELU_N1_TO_1, RELU6."""
DIMS = 5
"""Dimensions that the kernels with strides go over."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A constant array of the generated file."""

    ctype: str
    values: Array


@dataclass(frozen=True, kw_only=True)
class Call:
    """``function(&parameters, tensors…)``; `struct` is the parameters' type, `source` the kernel's file."""

    function: str
    struct: str
    fields: Mapping[str, Any]
    tensors: tuple[int, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation. `alias`: the output is the input, in another shape; `in_place`: the inputs (by
    position) whose memory the output may take."""

    kind: str
    calls: tuple[Call, ...] = ()
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    alias: bool = False
    in_place: tuple[int, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Bound:
    """An operation with its tensors."""

    file: File
    op: Op
    where: str

    @property
    def kind(self) -> str:
        return self.op.kind

    def index(self, place: int) -> int:
        """The tensor at input `place`, -1 when it is left out."""
        return self.op.inputs[place] if place < len(self.op.inputs) else -1

    def input(self, place: int) -> Stored:
        index = self.index(place)
        if index < 0:
            self.refuse(f"needs input {place}")
        return self.file.tensors[index]

    def output(self, place: int = 0) -> Stored:
        return self.file.tensors[self.op.outputs[place]]

    def constant(self, place: int) -> Array:
        """The value of an input that must be known."""
        data = self.input(place).data
        if data is None:
            self.refuse(f"is taken with a constant input {place} only")
        return data

    def option(self, name: str, default: Any = 0) -> Any:
        return getattr(self.op.options, name, default)

    def refuse(self, why: str) -> NoReturn:
        """Refuse the operation by its name."""
        raise Refusal(
            f"{self.kind} ({self.where}) {why}",
            remedy="leave the target c99 out, or use tflm",
            code="unsupported_op",
        )

    def require(self, fine: bool, why: str) -> None:
        """Refuse the operation unless `fine`: the C believes the file's shapes."""
        if not fine:
            self.refuse(why)

    def quantization(self, tensor: Stored) -> tuple[float, int]:
        """Scale (as the float32 it is) and zero point of an int8 activation."""
        if tensor.dtype != np.int8:
            self.refuse(f"has a tensor of type {tensor.dtype}: the kernels compute in int8")
        if tensor.scale is None or tensor.zero is None or len(tensor.scale) != 1:
            self.refuse("has an int8 tensor without a scale")
        return float(tensor.scale[0]), int(tensor.zero[0])

    def limits(self, activation: int | None = None) -> tuple[int, int]:
        """Smallest and largest output: the fused activation, in the output's integers."""
        chosen = self.option("fusedActivationFunction") if activation is None else activation
        if chosen not in _ACTIVATIONS:
            self.refuse(f"has fused activation {chosen}")
        scale, zero = self.quantization(self.output())
        low, high = _ACTIVATIONS[chosen]
        return (
            -128 if low is None else max(-128, zero + rounded(np.float32(low) / np.float32(scale))),
            127 if high is None else min(127, zero + rounded(np.float32(high) / np.float32(scale))),
        )


def rounded(value: Any) -> int:
    """The nearest integer, half away from zero."""
    number = float(value)
    return int(np.floor(number + 0.5)) if number >= 0 else int(np.ceil(number - 0.5))


def strides(shape: Sequence[int]) -> list[int]:
    """Elements from one index to the next, per dimension."""
    found = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        found[axis] = found[axis + 1] * shape[axis + 1]
    return found


def padded(values: Sequence[int], fill: int) -> list[int]:
    """`values` at the end of DIMS numbers."""
    return [fill] * (DIMS - len(values)) + list(values)


def count(shape: Sequence[int]) -> int:
    """Elements of a shape."""
    return int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
