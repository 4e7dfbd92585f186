"""One node on its way into the MIL program: its inputs as MIL variables or as numpy constants.

Whole numbers of every width are int32 inside the program, floats are float32 (float16 programs are cast as
a whole by coremltools' pass), booleans are MIL booleans. Constants become one MIL const each, however
often they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic
from numpy.typing import NDArray

from edgekit_converters.hub import nodes

Array = NDArray[Any]
Var = Any
"""A MIL variable (coremltools has no types for mypy)."""

_WIDTHS = {
    ir.DataType.INT8: (8, True),
    ir.DataType.UINT8: (8, False),
    ir.DataType.INT16: (16, True),
    ir.DataType.UINT16: (16, False),
    ir.DataType.UINT32: (32, False),
    ir.DataType.UINT64: (64, False),
}


class Scope:
    """What is known while a program is built: MIL variables by ONNX value, and the deployment target."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.vars: dict[ir.Value, Var] = {}
        self.empty: set[ir.Value] = set()

    def var(self, value: ir.Value, node: ir.Node) -> Var:
        """The MIL variable of `value`, a const when it is an initializer."""
        if value in self.empty:
            nodes.refuse(node, f"{value.name!r} has no elements", code="empty_tensor")
        if value not in self.vars:
            found = nodes.constant(value)
            if found is None:
                nodes.refuse(node, f"{value.name!r} is not computed by anything", code="corrupt_source")
            self.vars[value] = mb.const(val=program_constant(found, node))
        return self.vars[value]


def program_constant(array: Array, node: ir.Node) -> Array:
    """A constant in the program's type: float32, int32 or bool; copied only when the type differs."""
    if array.size == 0:
        nodes.refuse(node, "a constant without elements", code="empty_tensor")
    if array.dtype in (np.float32, np.int32, np.bool_):
        return array
    if array.dtype.kind in "iu":
        limits = np.iinfo(np.int32)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            nodes.refuse(node, "a constant is wider than 32 bits", code="integer_range")
        return array.astype(np.int32)
    if str(array.dtype) in ("float16", "bfloat16"):
        return array.astype(np.float32)
    nodes.refuse(node, f"Core ML has no {array.dtype}", code="unsupported_type")


class Node:
    """See the module."""

    def __init__(self, raw: ir.Node, scope: Scope) -> None:
        self.raw, self.scope = raw, scope
        self.op = raw.op_type

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return nodes.operand(self.raw, index) is not None

    def value(self, index: int) -> ir.Value:
        """The ONNX value at input `index`."""
        return nodes.required(self.raw, index)

    def var(self, index: int) -> Var:
        """Input `index` as a MIL variable."""
        return self.scope.var(self.value(index), self.raw)

    def vars(self) -> list[Var]:
        """All inputs that are given."""
        return [self.var(index) for index in range(len(self.raw.inputs)) if self.has(index)]

    def filled(self) -> list[Var]:
        """All inputs that have elements."""
        given = [self.value(index) for index in range(len(self.raw.inputs)) if self.has(index)]
        return [self.scope.var(value, self.raw) for value in given if not is_empty(value)]

    def constant(self, index: int) -> Array | None:
        """Input `index` as it is stored; None when it is computed or absent."""
        return nodes.constant(nodes.operand(self.raw, index))

    def need(self, index: int) -> Array:
        """Input `index`, which must be constant."""
        found = self.constant(index)
        if found is None:
            self.refuse(f"input {index} must be constant", "requires_constant_input")
        return found

    def weight(self, index: int) -> Array:
        """A constant input in the program's type."""
        return program_constant(self.need(index), self.raw)

    def numbers(self, index: int) -> list[int] | None:
        """A constant input as whole numbers; None when it is absent."""
        return [int(item) for item in self.need(index).reshape(-1)] if self.has(index) else None

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute."""
        return nodes.attr_int(self.raw, name, default)

    def real(self, name: str, default: float = 0.0) -> float:
        """An attribute."""
        return nodes.attr_float(self.raw, name, default)

    def text(self, name: str, default: str = "") -> str:
        """An attribute."""
        return nodes.attr_str(self.raw, name, default)

    def integers(self, name: str) -> list[int] | None:
        """An attribute."""
        found = nodes.attr_ints(self.raw, name)
        return None if found is None else list(found)

    def axis(self, name: str = "axis", default: int = 0, *, rank: int | None = None) -> int:
        """An axis attribute, counted from the front."""
        found = self.integer(name, default)
        return found + (self.var(0).rank if rank is None else rank) if found < 0 else found

    def shape(self, index: int = 0) -> list[int]:
        """The sizes of input `index`.

        Raises:
            Refusal: one of them is only known when the program runs.
        """
        return self.sizes(self.var(index))

    def sizes(self, var: Var) -> list[int]:
        """The sizes of a MIL variable; refused unless all are known."""
        if any(is_symbolic(size) for size in var.shape):
            self.refuse("a size is known only when the program runs", "dynamic_shape")
        return [int(size) for size in var.shape]

    def result_shape(self, index: int = 0) -> list[int] | None:
        """The shape of an output as the graph's types say, None when a size is free."""
        found = nodes.static_shape(self.raw.outputs[index])
        return None if found is None else list(found)

    def width(self, index: int = 0) -> tuple[int, bool] | None:
        """Bits and sign of a whole-number type whose arithmetic is not int32's; None for the others."""
        dtype = self.value(index).dtype
        return None if dtype is None else _WIDTHS.get(dtype)

    def used(self, index: int) -> bool:
        """Whether output `index` is read by anybody."""
        found = nodes.used_outputs(self.raw)
        return index < len(found) and found[index]

    def only_first_output(self) -> None:
        """Refuse a node whose further outputs are read."""
        if any(nodes.used_outputs(self.raw)[1:]):
            self.refuse("only its first output", "unsupported_attribute")

    def refuse(self, why: str, code: str = "unsupported_attribute") -> NoReturn:
        """Stop here, the node named."""
        nodes.refuse(self.raw, why, code=code, remedy="export the model with simpler ops")


def is_empty(value: ir.Value) -> bool:
    """Whether a value surely has no elements."""
    return 0 in (nodes.static_shape(value) or ())


def is_float(var: Var) -> bool:
    """Whether a MIL variable holds floats."""
    return var.dtype in (types.fp32, types.fp16)


def is_bool(var: Var) -> bool:
    """Whether a MIL variable holds booleans."""
    return bool(var.dtype == types.bool)


def like(var: Var, number: float) -> Any:
    """`number` as a scalar of the variable's type."""
    return np.float32(number) if is_float(var) else np.int32(number)


def as_bool(var: Var) -> Var:
    """Non-zero as True."""
    return var if is_bool(var) else mb.not_equal(x=var, y=like(var, 0))


def as_int(var: Var) -> Var:
    """Booleans as 0 and 1; whole numbers as they are."""
    return mb.cast(x=var, dtype="int32") if is_bool(var) else var


def as_float(var: Var) -> Var:
    """Anything as float32."""
    return var if is_float(var) else mb.cast(x=var, dtype="fp32")


def on_int(var: Var, function: Any) -> Var:
    """`function` of a variable, by way of int32 when MIL's op does not take booleans."""
    return as_bool(function(as_int(var))) if is_bool(var) else function(var)


def reshaped(var: Var, shape: Sequence[int]) -> Var:
    """`var` in another shape of the same volume; rank 0 included."""
    if not len(shape):
        return mb.squeeze(x=reshaped(var, [1]), axes=[0])
    if var.rank == 0:
        return mb.expand_dims(x=var, axes=list(range(len(shape))))
    if [*var.shape] == [*shape]:
        return var
    return mb.reshape(x=var, shape=np.array(shape, np.int32))


def choose(cond: Var, yes: Any, no: Any) -> Var:
    """`yes` where `cond` holds, else `no`, broadcast against each other.

    MIL's `select` infers its shape from the two values alone: one of them is brought to the full shape.
    """
    values = [np.shape(item) if not hasattr(item, "sym_type") else tuple(item.shape) for item in (yes, no)]
    if _covered(cond.shape, values):
        return mb.select(cond=cond, a=yes, b=no)
    if any(is_symbolic(size) for shape in (cond.shape, *values) for size in shape):
        return mb.select(cond=cond, a=_spread_over(cond, yes), b=no)
    shape = np.broadcast_shapes(tuple(cond.shape), *values)
    if not hasattr(yes, "sym_type"):
        return mb.select(cond=cond, a=np.broadcast_to(yes, shape).copy(), b=no)
    if not hasattr(no, "sym_type"):
        return mb.select(cond=cond, a=yes, b=np.broadcast_to(no, shape).copy())
    return mb.select(cond=cond, a=broadcast(yes, shape), b=no)


def _covered(cond: Sequence[Any], values: list[tuple[Any, ...]]) -> bool:
    """Whether the values alone have the full shape."""
    try:
        shape = np.broadcast_shapes(*values)
        return bool(np.broadcast_shapes(tuple(cond), shape) == shape)
    except (ValueError, TypeError):
        return False


def _spread_over(cond: Var, value: Any) -> Var:
    """`value` in the shape of `cond`, where that is free: a zero of that shape is added."""
    var = value if hasattr(value, "sym_type") else mb.const(val=value)
    if is_bool(var):
        return mb.logical_and(x=var, y=mb.logical_or(x=cond, y=mb.logical_not(x=cond)))
    zero = mb.mul(x=mb.cast(x=cond, dtype="fp32" if is_float(var) else "int32"), y=like(var, 0))
    return mb.add(x=zero, y=var)


def broadcast(x: Var, shape: Sequence[int]) -> Var:
    """`x` repeated to `shape`, as numpy broadcasts."""
    if not len(shape):
        return x
    sizes = [1] * (len(shape) - x.rank) + [int(size) for size in x.shape]
    x = reshaped(x, sizes)
    reps = [int(wanted) if own == 1 else 1 for own, wanted in zip(sizes, shape, strict=True)]
    return x if max(reps) == 1 else mb.tile(x=x, reps=reps)
