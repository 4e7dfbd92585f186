"""Writing ops and constants into the TFLite graph, and the small ops that many lowerings share.

Nothing here knows the ONNX graph; `context` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower import layout, versions
from edgekit_converters.targets.tflite.lower.arrays import broadcast, packed_int4
from edgekit_converters.targets.tflite.lower.tensors import Perm, Quant, Shape, Spec, Tensor
from edgekit_converters.targets.tflite.lower.writer import Graph

SMALLEST_HALF = 128
"""Below this a float16 constant with its DEQUANTIZE is larger than the float32 one."""
_SHARED_BELOW = 4096  # bytes; equal constants up to this size are stored once


class Grammar(Protocol):
    """What a runtime with an allow-list says of ops before they are written (see `restrict`)."""

    def allows(
        self, op: str, inputs: Sequence[Tensor | None], outputs: Sequence[Spec], fields: Mapping[str, Any]
    ) -> bool:
        """Whether the op may be written as it is."""

    def instead(
        self,
        emitter: Emitter,
        op: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Spec],
        fields: Mapping[str, Any],
    ) -> list[Tensor] | None:
        """What was written in place of the op; None when it may be written as it is."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to lower. `weights`: ``float32``, ``float16`` (stored so, computed in float32), ``int8``
    (hybrid kernels) or ``int4``. `integer_io`: a quantized port keeps its integers at the boundary.
    `grammar`: the ops that a runtime with an allow-list takes, and in which forms. `flat_dense`: its dense
    layers take any rank. `least_memory`: operators stand in the order whose tensors take least at once."""

    weights: str = "float32"
    integer_io: bool = True
    grammar: Grammar | None = None
    flat_dense: bool = False
    least_memory: bool = False


@dataclass
class Emitter:
    """A graph under construction."""

    options: Options
    graph: Graph = field(default_factory=Graph)
    transposes: int = 0
    _shared: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def emit(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        output: Spec,
        *,
        version: int | None = None,
        **fields: Any,
    ) -> Tensor:
        """Append an op with one output; `fields` are those of its options table."""
        return self.emit_all(op, inputs, [output], version=version, **fields)[0]

    def emit_all(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Spec],
        *,
        version: int | None = None,
        **fields: Any,
    ) -> list[Tensor]:
        """Append an op; the lowest version that carries it is chosen unless given.

        Raises:
            Refusal: the runtime takes neither such an op nor anything exact in its place.
        """
        if self.options.grammar is not None:
            other = self.options.grammar.instead(self, op, inputs, outputs, fields)
            if other is not None:
                return other
        if op in ("ADD", "SUB") and outputs[0].dtype is ir.DataType.INT16:
            fields["potScaleInt16"] = False
        version = version or versions.version_of(op, inputs, outputs, fields)
        made = [self._new(op.lower(), spec) for spec in outputs]
        indices = [-1 if item is None else item.index for item in inputs]
        self.graph.add_operator(op, version, indices, [item.index for item in made], fields)
        return made

    def allows(self, op: str, inputs: Sequence[Tensor | None], output: Spec, **fields: Any) -> bool:
        """Whether the runtime takes the op in this form; another form may do, see `emit`."""
        grammar = self.options.grammar
        return grammar is None or grammar.allows(op, inputs, [output], fields)

    def value(self, tensor: Tensor | None) -> np.ndarray | None:
        """The array of a constant tensor, None of any other."""
        if tensor is None or not tensor.is_constant or tensor.dtype is ir.DataType.INT4:
            return None
        return self._stored(tensor)

    def const(self, array: np.ndarray, *, name: str = "const", quant: Quant | None = None) -> Tensor:
        """A constant tensor; equal small ones are stored once."""
        dtype = ir.DataType.from_numpy(array.dtype)
        key = (array.tobytes(), array.shape, dtype, quant) if array.nbytes <= _SHARED_BELOW else None
        if key is not None and key in self._shared:
            return self._shared[key]
        stored = packed_int4(array) if dtype is ir.DataType.INT4 else array
        index = self.graph.add_tensor(name, array.shape, dtype, quant, stored)
        tensor = Tensor(index, array.shape, dtype, quant, is_constant=True)
        if key is not None:
            self._shared[key] = tensor
        return tensor

    def half(self, array: np.ndarray, *, name: str) -> Tensor:
        """A float32 constant stored in float16, where that holds its values; others as they are."""
        if array.dtype != np.float32:
            return self.const(array, name=name)
        with np.errstate(over="ignore"):
            stored = array.astype(np.float16)
        if not np.isfinite(stored).all():
            return self.const(array, name=name)
        small = self.const(stored, name=name)
        return self.emit("DEQUANTIZE", [small], Spec(small.shape, ir.DataType.FLOAT))

    def ints(self, values: int | Sequence[int] | np.ndarray, dtype: type[np.generic] = np.int32) -> Tensor:
        """A constant of shapes, axes, sizes."""
        return self.const(np.asarray(values, dtype))

    def reshape(self, tensor: Tensor, shape: Sequence[int | None]) -> Tensor:
        """The same elements in another shape; at most one size may be unknown.

        Raises:
            Refusal: more sizes are unknown.
        """
        wanted: Shape = tuple(shape)
        if wanted == tensor.shape:
            return tensor
        if sum(size is None for size in wanted) > 1:
            raise Refusal(
                f"a reshape to {list(wanted)} needs sizes that are known only at run time",
                remedy="fix the input shapes in the contract",
                code="dynamic_shape",
            )
        if tensor.is_constant and tensor.dtype is not ir.DataType.INT4 and None not in wanted:
            return self.const(
                self._stored(tensor).reshape([size or 0 for size in wanted]), quant=tensor.quant
            )
        sizes = [-1 if size is None else size for size in wanted]
        return self.emit("RESHAPE", [tensor, self.ints(sizes)], tensor.spec(wanted), newShape=sizes)

    def transpose(self, tensor: Tensor, perm: Perm) -> Tensor:
        """The tensor with its axes in another order; a reshape where no element moves."""
        if perm == layout.identity(tensor.rank):
            return tensor
        shape = layout.permuted(tensor.shape, perm)
        if tensor.is_constant:
            return self._transposed_constant(tensor, perm)
        if layout.moves_nothing(tensor.shape, perm) and sum(size is None for size in shape) <= 1:
            return self.reshape(tensor, shape)
        self.transposes += 1
        return self.emit("TRANSPOSE", [tensor, self.ints(perm)], tensor.spec(shape))

    def filler(self, value: float, like: Tensor) -> Tensor:
        """A scalar of `like`'s type: `value`, or the nearest integer that the type has."""
        kind = like.dtype.numpy()
        if like.quant is not None:
            value = np.rint(value / like.quant.scale[0]) + like.quant.zero_point[0]
        if np.issubdtype(kind, np.integer):
            value = np.clip(value, np.iinfo(kind).min, np.iinfo(kind).max)
        return self.const(np.array(value, kind))

    def cast(self, tensor: Tensor, dtype: ir.DataType) -> Tensor:
        """The same values in another type (the caller knows that they fit)."""
        if tensor.dtype is dtype:
            return tensor
        return self.emit("CAST", [tensor], Spec(tensor.shape, dtype))

    def binary(self, op: str, left: Tensor, right: Tensor, **fields: Any) -> Tensor:
        """A broadcasting op on two tensors of one type."""
        shape = broadcast(left.shape, right.shape)
        return self.emit(op, [left, right], Spec(shape, left.dtype), **fields)

    def binary_like(self, op: str, left: Tensor, right: Tensor) -> Tensor:
        """The same where the result has the shape, type and scale of the left one."""
        return self.emit(op, [left, right], left.spec())

    def unary(self, op: str, tensor: Tensor, **fields: Any) -> Tensor:
        """An elementwise op."""
        return self.emit(op, [tensor], Spec(tensor.shape, tensor.dtype), **fields)

    def touches_floats(self, first: int) -> bool:
        """Whether an operator since number `first` reads or writes floats."""
        return self.graph.touches_floats(first)

    def _new(self, name: str, spec: Spec) -> Tensor:
        index = self.graph.add_tensor(name, spec.shape, spec.dtype, spec.quant)
        return Tensor(index, spec.shape, spec.dtype, spec.quant)

    def _stored(self, tensor: Tensor) -> np.ndarray:
        stored: np.ndarray | None = self.graph.buffers[self.graph.tensors[tensor.index].buffer]
        assert stored is not None
        return stored

    def _transposed_constant(self, tensor: Tensor, perm: Perm) -> Tensor:
        return self.const(self._stored(tensor).transpose(perm), quant=tensor.quant)
