"""Small tools on `onnx_ir` graphs that several steps here share."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from edgekit_converters.quantize.roles import array


def clone(model: ir.Model) -> ir.Model:
    """A copy whose nodes can be changed; the weights' bytes are shared."""
    return ir.Model(
        model.graph.clone(),
        ir_version=max(model.ir_version, 10),
        producer_name="edgekit",
        functions=list(model.functions.values()),
    )


def store(graph: ir.Graph, name: str, data: Any) -> ir.Value:
    """A new initializer, under `name` or the nearest that is free."""
    wanted, count = name, 0
    while name in graph.initializers:
        count += 1
        name = f"{wanted}_{count}"
    value = ir.Value(
        name=name,
        shape=ir.Shape(data.shape),
        type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
        const_value=ir.Tensor(data, name=name),
    )
    graph.register_initializer(value)
    return value


def remove_unused(graph: ir.Graph) -> None:
    """Drop initializers that nothing reads."""
    ends = set(graph.outputs)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in ends:
            del graph.initializers[name]


def constant(value: ir.Value | None) -> Any:
    """The numpy array behind a constant value."""
    found = array(value)
    assert found is not None
    return found.numpy()
