"""What a lowering function works with: values of the ONNX graph on one side, TFLite tensors on the other.

For an op that knows nothing of layouts and writes one tensor::

    @lowers("Floor")
    def floor(ctx: Context, node: ir.Node) -> None:
        tensor, perm = ctx.any_layout(node.inputs[0])
        ctx.set(node.outputs[0], ctx.emit("FLOOR", [tensor], ctx.output(node, perm)), perm)

- ``ctx.tensor(value)``: the value in its logical (ONNX) axis order; ``ctx.channels_last(value)``;
  ``ctx.any_layout(value)``: whatever order is at hand, with it; ``ctx.align(values)``: operands of a
  broadcasting op brought to one rank and one order at the least cost.
- ``ctx.constant(value)``: the numpy array when the value is known now, else None.
- ``ctx.output(node, perm)``: the tensor to write for ``node.outputs[0]`` (its shape, type and, inside a
  quantized pattern, its integer type and scale).
- ``ctx.set(value, tensor, perm)``: the value is held by this tensor from now on.
- ``ctx.fused(node)``: the activation that can be fused into this op; its result is then what to set.

Constants become buffers when asked for, each once. Axis orders are in `layout`, the integer patterns in
`patterns`, the file in `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower import activation, layout, versions
from edgekit_converters.targets.tflite.lower.tensors import Perm, Quant, Shape, Spec, Tensor
from edgekit_converters.targets.tflite.lower.writer import Graph

SMALLEST_HALF = 128
"""Below this a float16 constant with its DEQUANTIZE is larger than the float32 one."""
_SHARED_BELOW = 4096  # bytes; equal constants up to this size are stored once


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to lower. `weights`: ``float32``, ``float16`` (stored so, computed in float32), ``int8``
    (hybrid kernels) or ``int4``. `integer_io`: a quantized port keeps its integers at the boundary."""

    weights: str = "float32"
    integer_io: bool = True


@dataclass
class Pattern:
    """The quantized pattern that is being lowered: tensors to read and to write instead of floats."""

    inputs: dict[ir.Value, ir.Value]
    outputs: dict[ir.Value, ir.Value]
    quants: dict[ir.Value, Quant]
    activation: int
    result: ir.Value


@dataclass(frozen=True)
class Mark:
    """State of a lowering, to return to."""

    graph: Any
    state: tuple[Any, ...]
    transposes: int


@dataclass
class Context:
    """State of one lowering; see the module."""

    options: Options
    graph: Graph = field(default_factory=Graph)
    done: set[ir.Node] = field(default_factory=set)
    pattern: Pattern | None = None
    transposes: int = 0
    quants: dict[ir.Value, Quant] = field(default_factory=dict)
    """Scales of the integer values of a QDQ graph."""
    unclear: set[ir.Value] = field(default_factory=set)
    """Integer constants that their readers scale differently."""
    flattened: dict[ir.Value, tuple[ir.Value, Perm]] = field(default_factory=dict)
    """Values made by flattening all axes but the first of one that is held in another order."""
    _held: dict[ir.Value, dict[Perm, Tensor]] = field(default_factory=dict)
    _deferred: dict[ir.Value, Callable[[], None]] = field(default_factory=dict)
    _shared: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    # Values -----------------------------------------------------------------------------------

    def tensor(self, value: ir.Value) -> Tensor:
        """`value` in its logical axis order."""
        return self.in_order(value, layout.identity(self.rank(value)))

    def channels_last(self, value: ir.Value) -> Tensor:
        """`value` (N, C, spatial axes) with its channels last."""
        return self.in_order(value, layout.channels_last(self.rank(value)))

    def in_order(self, value: ir.Value, perm: Perm) -> Tensor:
        """`value` with its axes in the order `perm`; made at most once."""
        value = self.resolved(value)
        held = self._held.get(value, {}) if value.const_value is not None else self._holdings(value)
        if perm not in held and value.const_value is not None:
            self._hold_constant(value, perm)
        elif perm not in held:
            order = self._nearest(held, perm)
            held[perm] = self.transpose(held[order], layout.between(order, perm))
        return self._held[value][perm]

    def held_in(self, value: ir.Value, perm: Perm) -> Tensor:
        """The tensor that holds `value` (of the graph, not of a pattern) in the order `perm`."""
        return self._held[value][perm]

    def any_layout(self, value: ir.Value) -> tuple[Tensor, Perm]:
        """`value` in an order in which it is held (channels last before logical), and that order."""
        held = self._holdings(self.resolved(value))
        last = layout.channels_last(self.rank(value))
        perm = last if last in held else next(iter(held))
        return held[perm], perm

    def is_held(self, value: ir.Value, perm: Perm) -> bool:
        """Whether `value` is at hand in this order (constants are, in every order)."""
        return self.constant(value) is not None or perm in self._holdings(self.resolved(value))

    def align(self, values: Sequence[ir.Value]) -> tuple[list[Tensor], Perm]:
        """Operands of a broadcasting op: same axis order, lower ranks filled with ones in front.

        An operand keeps its lower rank when the order is the logical one.
        """
        rank = max(self.rank(value) for value in values)
        perm = self._cheapest(values, rank)
        if perm == layout.identity(rank):
            return [self.tensor(value) for value in values], perm
        return [self._expanded(value, rank, perm) for value in values], perm

    def set(self, value: ir.Value, tensor: Tensor, perm: Perm | None = None) -> None:
        """`value` is held by `tensor` in the order `perm` (default: the logical one)."""
        target = self.pattern.outputs.get(value, value) if self.pattern else value
        self._held.setdefault(target, {})[perm if perm is not None else layout.identity(tensor.rank)] = tensor

    def defer(self, value: ir.Value, make: Callable[[], None]) -> None:
        """`make` shall set `value` when somebody asks for it, and not be called otherwise."""
        self._deferred[value] = make

    def alias(self, value: ir.Value, source: ir.Value, perm: Perm) -> None:
        """`value` is `source` transposed by `perm`: nothing is computed, the orders are renamed."""
        source = self.resolved(source)
        target = self.pattern.outputs.get(value, value) if self.pattern else value
        place = layout.inverse(perm)
        for held, tensor in self._holdings(source).items():
            self._held.setdefault(target, {})[tuple(place[axis] for axis in held)] = tensor

    def flatten(self, value: ir.Value, source: ir.Value) -> None:
        """`value` is `source` with all axes but the first made one.

        Where `source` is held in another order than the logical one, nothing is done until somebody asks:
        a product with a constant matrix permutes the matrix instead (`dense`).
        """
        source = self.resolved(source)
        target = self.pattern.outputs.get(value, value) if self.pattern else value
        shape = self.shape(value)
        _, perm = self.any_layout(source)
        if (
            perm == layout.identity(len(perm))
            or perm[0] != 0
            or self.is_held(source, layout.identity(len(perm)))
        ):
            self._held[target] = {(0, 1): self.reshape(self.tensor(source), shape)}
            return
        self.flattened[target] = (source, perm)
        identity = layout.identity(len(perm))

        def make() -> None:
            self._held[target] = {(0, 1): self.reshape(self.in_order(source, identity), shape)}

        self.defer(target, make)

    def constant(self, value: ir.Value) -> np.ndarray | None:
        """The array of a value that is known now (an initializer); None otherwise."""
        return None if value.const_value is None else value.const_value.numpy()

    def real(self, value: ir.Value) -> np.ndarray | None:
        """The array of a known value; a dequantized constant too."""
        found = self.constant(value)
        integers = self.resolved(value)
        if found is not None or integers.const_value is None:
            return found
        return dequantized(integers.const_value.numpy(), self.quants[integers])

    def rank(self, value: ir.Value) -> int:
        """Number of axes.

        Raises:
            Refusal: it is not known.
        """
        return len(self.shape(value))

    def shape(self, value: ir.Value) -> Shape:
        """Sizes, None where known only at run time.

        Raises:
            Refusal: not even the rank is known.
        """
        if value.shape is None:
            if value.const_value is not None:
                return tuple(value.const_value.shape.numpy())
            held = self._held.get(self.resolved(value))
            if held:  # the lowering of its producer found out
                perm, tensor = next(iter(held.items()))
                return layout.permuted(tensor.shape, layout.inverse(perm))
            raise Refusal(
                f"the number of axes of {value.name!r} is not known before the model runs",
                remedy="fix the input shapes in the contract, or use an onnx target",
                code="dynamic_shape",
            )
        return tuple(size if isinstance(size, int) else None for size in value.shape)

    def dtype(self, value: ir.Value) -> ir.DataType:
        """Its type.

        Raises:
            Refusal: it is not known.
        """
        if value.dtype is None:
            raise Refusal(f"the type of {value.name!r} is not known", code="unsupported_type")
        return value.dtype

    # New tensors ------------------------------------------------------------------------------

    def output(self, node: ir.Node | ir.Value, perm: Perm | None = None) -> Spec:
        """The tensor to write for a node's first output (or for a value), in the order `perm`."""
        value = node.outputs[0] if isinstance(node, ir.Node) else node
        shape = self.shape(value)
        shape = layout.permuted(shape, perm) if perm is not None else shape
        if self.pattern is not None and value in self.pattern.quants:
            target = self.pattern.outputs[value]
            return Spec(shape, self.dtype(target), self.pattern.quants[value])
        return Spec(shape, self.dtype(value))

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
        """Append an op; the lowest version that carries it is chosen unless given."""
        if op in ("ADD", "SUB") and outputs[0].dtype is ir.DataType.INT16:
            fields["potScaleInt16"] = False
        version = version or versions.version_of(op, inputs, outputs, fields)
        made = [self._new(op.lower(), spec) for spec in outputs]
        indices = [-1 if item is None else item.index for item in inputs]
        self.graph.add_operator(op, version, indices, [item.index for item in made], fields)
        return made

    def const(self, array: np.ndarray, *, name: str = "const", quant: Quant | None = None) -> Tensor:
        """A constant tensor; equal small ones are stored once."""
        dtype = ir.DataType.from_numpy(array.dtype)
        key = (array.tobytes(), array.shape, dtype, quant) if array.nbytes <= _SHARED_BELOW else None
        if key is not None and key in self._shared:
            return self._shared[key]
        stored = _packed_int4(array) if dtype is ir.DataType.INT4 else array
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

    # Small helpers, used by many ops ------------------------------------------------------------

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

    def unary(self, op: str, tensor: Tensor, **fields: Any) -> Tensor:
        """An elementwise op."""
        return self.emit(op, [tensor], Spec(tensor.shape, tensor.dtype), **fields)

    def fused(self, node: ir.Node) -> tuple[int, ir.Value]:
        """The activation to fuse into `node` (a value of ActivationFunctionType), and the value that the op
        then computes: the activation's output (its node is marked as done), or the node's own."""
        if self.pattern is not None:
            return self.pattern.activation, self.pattern.result
        found = activation.follower(node) if self.dtype(node.outputs[0]) is ir.DataType.FLOAT else None
        if found is None:
            return activation.NONE, node.outputs[0]
        self.done.add(found)
        return activation.kind(found) or activation.NONE, found.outputs[0]

    # Going back ------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Where the lowering stands, for `back_to`."""
        held = {value: dict(orders) for value, orders in self._held.items()}
        state = (held, dict(self._deferred), dict(self._shared), set(self.done), dict(self.flattened))
        return Mark(self.graph.mark(), state, self.transposes)

    def back_to(self, mark: Mark) -> None:
        """Forget everything since `mark`."""
        self.graph.back_to(mark.graph)
        self._held, self._deferred, self._shared, self.done, self.flattened = mark.state
        self.transposes = mark.transposes

    def touches_floats(self, first: int) -> bool:
        """Whether an operator since number `first` reads or writes floats."""
        return self.graph.touches_floats(first)

    # Inside -----------------------------------------------------------------------------------

    def resolved(self, value: ir.Value) -> ir.Value:
        """The integers that stand for `value` inside a quantized pattern; else `value`."""
        return self.pattern.inputs.get(value, value) if self.pattern else value

    def _holdings(self, value: ir.Value) -> dict[Perm, Tensor]:
        held = self._held.get(value)
        if held:
            return held
        if value in self._deferred:
            self._outside_patterns(self._deferred.pop(value))
        elif value.const_value is not None:
            self._hold_constant(value, layout.identity(self.rank(value)))
        if not self._held.get(value):
            raise Refusal(f"{value.name!r} was never computed", code="internal")
        return self._held[value]

    def _hold_constant(self, value: ir.Value, perm: Perm) -> None:
        assert value.const_value is not None
        quant = self.quants.get(value)
        if quant is not None and quant.per_channel:
            quant = Quant(quant.scale, quant.zero_point, perm.index(quant.axis))
        array, name = value.const_value.numpy().transpose(perm), value.name or "const"
        halved = quant is None and self.options.weights == "float16" and array.size >= SMALLEST_HALF
        made = self.half(array, name=name) if halved else self.const(array, name=name, quant=quant)
        self._held.setdefault(value, {})[perm] = made

    @staticmethod
    def _nearest(held: dict[Perm, Tensor], perm: Perm) -> Perm:
        for order, tensor in held.items():
            if layout.moves_nothing(tensor.shape, layout.between(order, perm)):
                return order
        return next(iter(held))

    def _outside_patterns(self, make: Callable[[], None]) -> None:
        kept, self.pattern = self.pattern, None
        make()
        self.pattern = kept

    def _new(self, name: str, spec: Spec) -> Tensor:
        index = self.graph.add_tensor(name, spec.shape, spec.dtype, spec.quant)
        return Tensor(index, spec.shape, spec.dtype, spec.quant)

    def _stored(self, tensor: Tensor) -> np.ndarray:
        stored: np.ndarray | None = self.graph.buffers[self.graph.tensors[tensor.index].buffer]
        assert stored is not None
        return stored

    def _transposed_constant(self, tensor: Tensor, perm: Perm) -> Tensor:
        return self.const(self._stored(tensor).transpose(perm), quant=tensor.quant)

    def _cheapest(self, values: Sequence[ir.Value], rank: int) -> Perm:
        """The order, among those at hand, that costs the fewest elements moved."""
        varying = [self.resolved(value) for value in values if self.constant(value) is None]
        orders = {
            perm: None for value in varying if self.rank(value) == rank for perm in self._holdings(value)
        }
        if not orders:
            return layout.identity(rank)

        def cost(perm: Perm) -> tuple[int, bool]:
            moved = sum(self._moved(value, rank, perm) for value in varying)
            return moved, perm == layout.identity(rank)

        return min(orders, key=cost)

    def _moved(self, value: ir.Value, rank: int, perm: Perm) -> int:
        held = self._holdings(value)
        if self.rank(value) < rank:
            ones = (1,) * (rank - self.rank(value)) + self.shape(value)
            return 0 if layout.moves_nothing(ones, perm) else _elements(ones)
        for order, tensor in held.items():
            if layout.moves_nothing(tensor.shape, layout.between(order, perm)):
                return 0
        return _elements(self.shape(value))

    def _expanded(self, value: ir.Value, rank: int, perm: Perm) -> Tensor:
        if self.rank(value) == rank:
            return self.in_order(value, perm)
        array = self.constant(value)
        ones = (1,) * (rank - self.rank(value))
        if array is not None and self.rank(value) == 0:
            return self.tensor(value)
        tensor = self.tensor(value)
        if array is not None:
            expanded = array.reshape(ones + array.shape).transpose(perm)
            return self.const(expanded, name=value.name or "const", quant=tensor.quant)
        return self.transpose(self.reshape(tensor, ones + tensor.shape), perm)


def _elements(shape: Shape) -> int:
    sizes = [1 if size is None else size for size in shape]
    return int(np.prod(sizes, dtype=np.int64))


def broadcast(*shapes: Shape) -> Shape:
    """The shape that numpy's rules give; an unknown size stays unknown unless another decides it."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(_widest(sizes) for sizes in zip(*padded, strict=True))


def dequantized(integers: np.ndarray, quant: Quant) -> np.ndarray:
    """The real values of `integers`, in float64."""
    shape = [1] * integers.ndim
    if quant.per_channel:
        shape[quant.axis] = len(quant.scale)
    zero = np.array(quant.zero_point, np.float64).reshape(shape)
    return (integers.astype(np.float64) - zero) * np.array(quant.scale, np.float64).reshape(shape)


def _widest(sizes: Sequence[int | None]) -> int | None:
    wide = [size for size in sizes if size not in (1, None)]
    if wide:
        return wide[0]
    return None if None in sizes else 1


def _packed_int4(array: np.ndarray) -> np.ndarray:
    """Two values a byte, the first in the low half."""
    flat = array.astype(np.int8).reshape(-1)
    flat = np.append(flat, np.zeros(len(flat) % 2, np.int8)).view(np.uint8)
    return (flat[0::2] & 0x0F) | ((flat[1::2] & 0x0F) << 4)


__all__ = ["Context", "Options", "Pattern", "broadcast", "dequantized"]
