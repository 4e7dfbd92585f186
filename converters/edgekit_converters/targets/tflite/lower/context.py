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
`patterns`, writing ops and constants in `emitter`, the file in `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower import activation, layout
from edgekit_converters.targets.tflite.lower.arrays import broadcast, dequantized, elements
from edgekit_converters.targets.tflite.lower.emitter import SMALLEST_HALF, Emitter, Options
from edgekit_converters.targets.tflite.lower.tensors import Perm, Quant, Shape, Spec, Tensor


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
class Context(Emitter):
    """State of one lowering; see the module."""

    done: set[ir.Node] = field(default_factory=set)
    pattern: Pattern | None = None
    quants: dict[ir.Value, Quant] = field(default_factory=dict)
    """Scales of the integer values of a QDQ graph."""
    unclear: set[ir.Value] = field(default_factory=set)
    """Integer constants that their readers scale differently."""
    flattened: dict[ir.Value, tuple[ir.Value, Perm]] = field(default_factory=dict)
    """Values made by flattening all axes but the first of one that is held in another order."""
    _held: dict[ir.Value, dict[Perm, Tensor]] = field(default_factory=dict)
    _deferred: dict[ir.Value, Callable[[], None]] = field(default_factory=dict)

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

    def output(self, node: ir.Node | ir.Value, perm: Perm | None = None) -> Spec:
        """The tensor to write for a node's first output (or for a value), in the order `perm`."""
        value = node.outputs[0] if isinstance(node, ir.Node) else node
        shape = self.shape(value)
        shape = layout.permuted(shape, perm) if perm is not None else shape
        if self.pattern is not None and value in self.pattern.quants:
            target = self.pattern.outputs[value]
            return Spec(shape, self.dtype(target), self.pattern.quants[value])
        return Spec(shape, self.dtype(value))

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
            return 0 if layout.moves_nothing(ones, perm) else elements(ones)
        for order, tensor in held.items():
            if layout.moves_nothing(tensor.shape, layout.between(order, perm)):
                return 0
        return elements(self.shape(value))

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


__all__ = ["SMALLEST_HALF", "Context", "Options", "Pattern", "broadcast", "dequantized"]
