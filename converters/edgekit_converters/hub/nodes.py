"""Reading nodes of the canonical graph: attributes, constants, shapes, types, and refusing one by name.

For lowerings and for the hub's own rules. Nothing here changes a graph. Specification of the
objects: onnx_ir 1.1 (`ir.Node`, `ir.Value`); of the operators: onnx/docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgekit_converters.errors import Refusal

Array = NDArray[Any]


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """The input at `index`, None when it is absent or left empty."""
    return node.inputs[index] if index < len(node.inputs) else None


def required(node: ir.Node, index: int) -> ir.Value:
    """The input at `index`.

    Raises:
        Refusal: it is missing (a damaged graph).
    """
    value = operand(node, index)
    if value is None:
        refuse(node, f"input {index} is missing", code="corrupt_source")
    return value


def used_outputs(node: ir.Node) -> tuple[bool, ...]:
    """For each declared output whether it has a name and somebody reads it."""
    return tuple(bool(out.name) and (bool(out.uses()) or out.is_graph_output()) for out in node.outputs)


def has_attr(node: ir.Node, name: str) -> bool:
    """Whether the attribute is written down."""
    return name in node.attributes


def attr_int(node: ir.Node, name: str, default: int = 0) -> int:
    """An integer attribute."""
    found = node.attributes.get(name)
    return default if found is None else int(found.as_int())


def attr_float(node: ir.Node, name: str, default: float = 0.0) -> float:
    """A float attribute."""
    found = node.attributes.get(name)
    return default if found is None else float(found.as_float())


def attr_str(node: ir.Node, name: str, default: str = "") -> str:
    """A string attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_string()


def attr_ints(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list of integers, None when it is not written down."""
    found = node.attributes.get(name)
    return None if found is None else tuple(int(item) for item in found.as_ints())


def attr_floats(node: ir.Node, name: str) -> tuple[float, ...] | None:
    """A list of floats, None when it is not written down."""
    found = node.attributes.get(name)
    return None if found is None else tuple(float(item) for item in found.as_floats())


def attr_strs(node: ir.Node, name: str) -> tuple[str, ...] | None:
    """A list of strings, None when it is not written down."""
    found = node.attributes.get(name)
    return None if found is None else tuple(found.as_strings())


def attr_tensor(node: ir.Node, name: str) -> Array | None:
    """A tensor attribute as an array."""
    found = node.attributes.get(name)
    return None if found is None else np.asarray(found.as_tensor().numpy())


def constant(value: ir.Value | None) -> Array | None:
    """The value of an initializer; None for everything that is computed or fed."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def ints(value: ir.Value | None) -> tuple[int, ...] | None:
    """A constant tensor of integers, flattened; None when it is not constant."""
    found = constant(value)
    return None if found is None else tuple(int(item) for item in found.reshape(-1))


def rank(value: ir.Value | None) -> int | None:
    """Number of axes, None when unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def dims(value: ir.Value) -> tuple[int | None, ...] | None:
    """Sizes, None for each free one; None when not even the rank is known."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """All sizes, or None when any of them is free."""
    if value is None or value.shape is None:
        return None
    found = dims(value) or ()
    sizes = tuple(size for size in found if size is not None)
    return sizes if len(sizes) == len(value.shape) else None


def dtype(value: ir.Value | None) -> ir.DataType | None:
    """The element type, None when unknown."""
    return None if value is None else value.dtype


def numpy_dtype(value: ir.Value) -> np.dtype[Any]:
    """The element type as numpy has it (bfloat16, float8 and int4 come from ml_dtypes).

    Raises:
        Refusal: the type is unknown or no number.
    """
    if value.dtype is None or value.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        producer = value.producer()
        if producer is not None:
            refuse(producer, f"the type of {value.name!r} is not known", code="unsupported_type")
        raise Refusal(f"the type of {value.name!r} is not known", code="unsupported_type")
    return np.dtype(value.dtype.numpy())


def is_float(value: ir.Value | None) -> bool:
    """Whether the elements are floating-point numbers."""
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def axis_of(node: ir.Node, size: int, *, default: int = 0, name: str = "axis") -> int:
    """The attribute `name` counted from the front, for a tensor of `size` axes."""
    axis = attr_int(node, name, default)
    return axis + size if axis < 0 else axis


def front(axes: Sequence[int], size: int) -> tuple[int, ...]:
    """Axes counted from the front."""
    return tuple(axis + size if axis < 0 else axis for axis in axes)


def label(node: ir.Node) -> str:
    """How messages name a node: its type, its name, and what it computes."""
    kind = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    made = next((out.name for out in node.outputs if out.name), "?")
    own = f" {node.name!r}" if node.name else ""
    return f"{kind}{own} (computes {made!r})"


def refuse(node: ir.Node, why: str, *, code: str = "unsupported_op", remedy: str | None = None) -> NoReturn:
    """Stop at `node`.

    Raises:
        Refusal: always; `code` is the reason code.
    """
    raise Refusal(f"{label(node)}: {why}", code=code, remedy=remedy)
