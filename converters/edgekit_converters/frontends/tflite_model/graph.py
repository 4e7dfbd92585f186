"""The ONNX graph in the making: values of TFLite tensors, in the file's layout or channels first.

A tensor is kept in the layout in which it was computed and turned when another is asked for, so that
a plain CNN has one transpose at its beginning and none between its layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Array, Emitter
from edgekit_converters.frontends.tflite_model.reader import File, Op, Stored

OPSET = 21
_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_LIMITS = {1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
_TANH = 4


class Graph:
    """Values by tensor index; ops of `ops/` read and write it."""

    def __init__(self, file: File, where: str) -> None:
        self.file, self.where = file, where
        self.e = Emitter("tfl_", opset=OPSET)
        self._values: dict[tuple[int, bool], str] = {}
        self._integers: dict[tuple[int, bool], str] = {}
        inputs = [file.tensors[i] for i in file.inputs.values()]
        self.free = all(item.free for item in inputs)

    def tensor(self, index: int) -> Stored:
        """What the file says about a tensor."""
        return self.file.tensors[index]

    def constant(self, op: Op, place: int) -> Array:
        """Input `place` of `op`, which must be stored in the file."""
        data = self.tensor(op.inputs[place]).data
        if data is None:
            raise self.refusal(op, f"has an input {place} that is computed", "requires_constant_input")
        return data

    def given(self, op: Op, place: int) -> bool:
        """Whether an optional input is there."""
        return place < len(op.inputs) and op.inputs[place] >= 0

    def refusal(self, op: Op, why: str, code: str = "unsupported_op") -> SourceError:
        """The error that names an op by its first output."""
        name = self.tensor(op.outputs[0]).name if op.outputs else ""
        return SourceError(f"node {name!r} ({op.kind}) {why}", where=self.where, code=code)

    def value(self, index: int, *, first: bool = False) -> str:
        """The real value of a tensor (dequantized), channels first if `first` and of rank four."""
        stored = self.tensor(index)
        first = first and len(stored.shape) == 4
        key = (index, first)
        if key in self._values:
            return self._values[key]
        if stored.data is not None:
            self._values[key] = self._constant(stored, first)
        elif 0 in stored.shape:  # nothing is stored of what has no elements
            self._values[key] = self.e.constant(np.zeros(stored.shape, stored.dtype))
        elif (index, not first) in self._values and len(stored.shape) == 4:
            self._values[key] = self._turned(index, first)
        else:
            raise SourceError(
                f"tensor {stored.name!r} is used before it is computed",
                where=self.where,
                code="corrupt_source",
            )
        return self._values[key]

    def _turned(self, index: int, first: bool) -> str:
        """A computed tensor in the other layout."""
        perm = list(_FIRST if first else _LAST)
        made = self.e.op("Transpose", self._values[index, not first], perm=perm)
        return self.regridded(index, made, first)

    def regridded(self, index: int, name: str, first: bool | None = None) -> str:
        """What an op gave that only moves a tensor's elements: still on its grid, and said so.

        Between a dequantization and the next op that computes there is always a quantization: that is
        the form in which runtimes find integer kernels (onnxruntime 1.31 fails on others).
        """
        stored = self.tensor(index)
        if stored.scale is None or len(stored.scale) > 1:
            return name
        integers = self.quantized(name, stored)
        if first is not None:
            self._integers[index, first] = integers
        return self.dequantized(integers, stored, 0)

    def has_first(self, index: int) -> bool:
        """Whether the tensor is at hand channels first."""
        return (index, True) in self._values

    def _constant(self, stored: Stored, first: bool) -> str:
        assert stored.data is not None
        data, axis = stored.data, stored.axis
        if first:
            data, axis = data.transpose(_FIRST), _FIRST.index(axis)
        if stored.scale is None:
            whole = stored.dtype == np.float16
            return self.e.constant(data.astype(np.float32) if whole else data)
        return self.dequantized(self.e.constant(data), stored, axis)

    def dequantized(self, name: str, stored: Stored, axis: int) -> str:
        """Reals for stored integers."""
        assert stored.scale is not None
        assert stored.zero is not None
        single = len(stored.scale) == 1
        scale = self.e.constant(stored.scale[0] if single else stored.scale, np.float32)
        zero = self.e.constant(stored.zero[0] if single else stored.zero, stored.dtype)
        return self.e.op("DequantizeLinear", name, scale, zero, axis=None if single else axis)

    def quantized(self, name: str, stored: Stored) -> str:
        """Integers for reals, with the tensor's scale."""
        assert stored.scale is not None
        assert stored.zero is not None
        scale = self.e.constant(stored.scale[0], np.float32)
        return self.e.op("QuantizeLinear", name, scale, self.e.constant(stored.zero[0], stored.dtype))

    def put(self, index: int, name: str, *, first: bool = False) -> None:
        """Set a tensor: for a quantized one `name` is rounded to its grid."""
        stored = self.tensor(index)
        key = (index, first and len(stored.shape) == 4)
        if stored.scale is not None and len(stored.scale) == 1:
            self._integers[key] = self.quantized(name, stored)
            name = self.dequantized(self._integers[key], stored, 0)
        self._values[key] = name

    def feed(self, index: int, name: str) -> None:
        """Set an input: for a quantized one `name` holds its integers."""
        stored = self.tensor(index)
        if stored.scale is not None:
            self._integers[index, False] = name
            name = self.dequantized(name, stored, 0)
        self._values[index, False] = name

    def ints(self, index: int) -> str:
        """A tensor as the file holds it: integers if it is quantized."""
        stored, name = self.tensor(index), self.value(index)
        if stored.scale is None:
            return name
        return self._integers.get((index, False)) or self.quantized(name, stored)

    def activated(self, op: Op, name: str) -> str:
        """`name` after the op's fused activation."""
        kind = int(getattr(op.options, "fusedActivationFunction", 0) or 0)
        if kind == 0:
            return name
        if kind == _TANH:
            return self.e.op("Tanh", name)
        if kind not in _LIMITS:
            raise self.refusal(op, "has an activation that is not supported", "unsupported_attribute")
        low, high = _LIMITS[kind]
        if high is None:
            return self.e.op("Relu", name)
        return self.e.op("Clip", name, self.e.constant(low, np.float32), self.e.constant(high, np.float32))

    def shape(self, index: int) -> list[int]:
        """A target for Reshape: the tensor's sizes, -1 for a free batch."""
        sizes = list(self.tensor(index).shape)
        return [-1, *sizes[1:]] if self.free and sizes and sizes[0] == 1 else sizes

    def option(self, op: Op, name: str, default: Any = 0) -> Any:
        """One of the op's options."""
        found = getattr(op.options, name, default)
        return default if found is None else found
