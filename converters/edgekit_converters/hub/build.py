"""Writing nodes: a builder that names, types and shapes what it makes.

A rule (of an upgrade or of a decomposition) gets a node and a `Builder` and returns the values that
take the place of the node's outputs. Shapes are inferred node by node, so that the next rule sees
them; what onnx's inference cannot tell stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import shape_inference

from edgekit_converters.hub.nodes import Array, dims, numpy_dtype, rank, refuse

OPSET = 21
Operand = ir.Value | float | int | Sequence[int] | Array | None
Result = ir.Value | Sequence[ir.Value | None] | None
Rule = Callable[[ir.Node, "Builder"], Result]


class Names:
    """Names no value of the graph has yet, the same in every process."""

    def __init__(self, used: Iterable[str]) -> None:
        self._used = set(used)
        self._next = 0

    def fresh(self, hint: str) -> str:
        """A new name that begins with `hint`."""
        name = f"{hint}.{self._next}"
        while name in self._used:
            self._next += 1
            name = f"{hint}.{self._next}"
        self._next += 1
        self._used.add(name)
        return name


def names_of(model: ir.Model) -> Names:
    """The names in use in `model`."""
    graph = model.graph
    used = {value.name or "" for value in (*graph.inputs, *graph.initializers.values())}
    used |= {out.name or "" for node in graph.all_nodes() for out in node.outputs}
    return Names(used)


class Builder:
    """Collects new nodes and constants in the order they are asked for."""

    def __init__(self, names: Names, *, hint: str = "v", opset: int = OPSET) -> None:
        self._names, self._hint, self._opset = names, hint, opset
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def __call__(self, kind: str, *inputs: Operand, **attributes: Any) -> ir.Value:
        """One node with one output. Numbers become constants of the first tensor's type, lists int64."""
        return self.many(kind, 1, *inputs, **attributes)[0]

    def many(self, kind: str, outputs: int, *inputs: Operand, **attributes: Any) -> tuple[ir.Value, ...]:
        """One node with several outputs."""
        like = next((item for item in inputs if isinstance(item, ir.Value)), None)
        values = [None if item is None else self.value(item, like) for item in inputs]
        given = {key: item for key, item in attributes.items() if item is not None}
        node = ir.node(kind, values, given, num_outputs=outputs)
        return self.add(node)

    def again(
        self, node: ir.Node, *inputs: Operand, drop: Sequence[str] = (), kind: str | None = None, **extra: Any
    ) -> tuple[ir.Value, ...]:
        """`node` once more with other inputs, without the attributes `drop`, with those of `extra`."""
        given: dict[str, Any] = {k: v for k, v in node.attributes.items() if k not in drop and k not in extra}
        given.update({key: item for key, item in extra.items() if item is not None})
        like = next((item for item in inputs if isinstance(item, ir.Value)), None)
        values = [None if item is None else self.value(item, like) for item in inputs]
        attributes = [
            item if isinstance(item, ir.Attr) else ir.convenience.convert_attribute(key, item)
            for key, item in given.items()
        ]
        made = ir.Node(node.domain, kind or node.op_type, values, attributes, num_outputs=len(node.outputs))
        return self.add(made)

    def add(self, node: ir.Node) -> tuple[ir.Value, ...]:
        """Take over a finished node: name and type its outputs."""
        for out in node.outputs:
            out.name = self._names.fresh(self._hint)
        infer_node(node, self._opset)
        self.nodes.append(node)
        return tuple(node.outputs)

    def value(self, item: ir.Value | float | int | Sequence[int] | Array, like: ir.Value | None) -> ir.Value:
        """`item` as a value; see `__call__`."""
        if isinstance(item, ir.Value):
            return item
        if isinstance(item, np.ndarray | np.generic):
            return self.const(np.asarray(item))
        if isinstance(item, (bool, int, float)):
            kind = np.dtype(np.float32) if like is None else numpy_dtype(like)
            return self.const(np.asarray(item, kind))
        return self.const(np.asarray(item, np.int64))

    def const(self, array: Array) -> ir.Value:
        """A constant."""
        return self.tensor(ir.tensor(array))

    def tensor(self, tensor: ir.TensorProtocol) -> ir.Value:
        """A constant from a tensor that exists already; its bytes are not copied."""
        name = self._names.fresh(f"{self._hint}.c")
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
        self.constants.append(value)
        return value

    def constant_node(self, node: ir.Node) -> ir.Value:
        """What a Constant node writes down, as a constant."""
        tensor = node.attributes.get("value")
        return self.const(written(node)) if tensor is None else self.tensor(tensor.as_tensor())

    def const_int(self, number: int) -> ir.Value:
        """An int64 constant of rank 0."""
        return self.const(np.asarray(number, np.int64))

    def zero_float(self) -> ir.Value:
        """A float32 zero of shape (1,)."""
        return self.const(np.zeros(1, np.float32))

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A constant of rank 0 with the type of `like`."""
        return self.const(np.asarray(number, numpy_dtype(like)))

    def shape(self, value: ir.Value, start: int = 0, end: int | None = None) -> ir.Value:
        """Sizes as an int64 vector: a constant when they are known, else a Shape node."""
        known = dims(value)
        if known is not None:
            part = known[start:end]
            if all(size is not None for size in part):
                return self.const(np.asarray(part, np.int64))
        return self("Shape", value, start=start or None, end=end)

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """One size as an int64 vector of length one."""
        axis = axis if axis >= 0 else axis + (rank(value) or 0)
        return self.shape(value, axis, axis + 1)

    def reshape(self, value: ir.Value, *parts: int | ir.Value | Sequence[int]) -> ir.Value:
        """Reshape to the concatenation of `parts` (numbers, lists, int64 vectors). No 0 means "copy"."""
        if all(not isinstance(part, ir.Value) for part in parts):
            flat = [x for p in parts for x in ([p] if isinstance(p, int) else p)]  # type: ignore[union-attr]
            return self("Reshape", value, flat, allowzero=1 if 0 in flat else None)
        pieces = [
            part if isinstance(part, ir.Value) else self.const(np.atleast_1d(np.asarray(part, np.int64)))
            for part in parts
        ]
        whole = pieces[0] if len(pieces) == 1 else self("Concat", *pieces, axis=0)
        return self("Reshape", value, whole)

    def cast(self, value: ir.Value, to: ir.DataType | None) -> ir.Value:
        """Cast unless it is of that type already."""
        return value if to is None or value.dtype == to else self("Cast", value, to=int(to))

    def slice(self, value: ir.Value, axis: int, start: int, end: int, step: int = 1) -> ir.Value:
        """A slice along one axis."""
        return self("Slice", value, [start], [end], [axis], [step])


_SCALARS = {"value_float": np.float32, "value_int": np.int64}
_LISTS = {"value_floats": np.float32, "value_ints": np.int64}


def written(node: ir.Node) -> Array:
    """The array of a Constant node that is not written as a tensor.

    Raises:
        Refusal: strings, or a sparse tensor.
    """
    for name, kind in (*_SCALARS.items(), *_LISTS.items()):
        if name in node.attributes:
            return np.asarray(node.attributes[name].value, kind)
    refuse(node, "holds strings or a sparse tensor", code="unsupported_type")


def type_proto(value: ir.Value) -> onnx.TypeProto | None:
    """What onnx's inference is told of a value; None when its type is unknown."""
    if value.type is None:
        return None
    proto: onnx.TypeProto = ir.serde.serialize_type(value.type)
    if value.shape is not None and proto.HasField("tensor_type"):
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def infer_node(node: ir.Node, opset: int) -> None:
    """Give the node's outputs the types and shapes onnx's inference knows from its inputs."""
    inputs = [value for value in node.inputs if value is not None]
    types = {value.name or "": type_proto(value) for value in inputs}
    if not onnx.defs.has(node.op_type, opset, node.domain) or any(item is None for item in types.values()):
        return
    data = {
        value.name or "": ir.serde.serialize_tensor(value.const_value)
        for value in inputs
        if value.const_value is not None and value.const_value.size <= 256 and not value.is_graph_input()
    }
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    try:
        found = shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            {key: item for key, item in types.items() if item is not None},
            data,
            opset_imports=[onnx.helper.make_opsetid(node.domain, opset)],
        )
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        # What inference does not follow is no error; a wrong node is found by the checker at the end.
        return
    for out in node.outputs:
        proto = found.get(out.name or "")
        if proto is not None:
            out.type = ir.serde.deserialize_type_proto_for_type(proto)
            out.shape = ir.serde.deserialize_type_proto_for_shape(proto)
