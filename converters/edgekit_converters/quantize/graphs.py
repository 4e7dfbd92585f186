"""Small tools on `onnx_ir` graphs that several steps here share."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.quantize.roles import WEIGHTED, array, integer


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


def finite_constant(node: ir.Node, index: int) -> Any:
    """The constant that `node` reads at `index`.

    Raises:
        Refusal: it holds NaN or infinity, which no grid has.
    """
    found = constant(node.inputs[index])
    if not np.isfinite(found).all():
        raise Refusal(
            f"{node.op_type} {node.name!r}: its constant input {index} holds NaN or infinity",
            remedy="look at the training: the model itself is damaged",
            code="not_finite",
        )
    return found


def weight_sizes(graph: ir.Graph) -> dict[str, int]:
    """Elements of the constant weight by weighted op, named by its first output."""
    return {
        str(node.outputs[0].name): int(constant(node.inputs[1]).size)
        for node in graph
        if node.op_type in WEIGHTED and array(node.inputs[1]) is not None
    }


def multiplications(graph: ir.Graph) -> dict[str, int]:
    """Multiplications of one sample by weighted op; unknown sizes count as one."""
    found = {}
    for node in graph:
        if node.op_type not in WEIGHTED or array(node.inputs[1]) is None:
            continue
        shape = node.outputs[0].shape
        places = [size for size in (shape or ())[1:] if isinstance(size, int)]
        weight = constant(node.inputs[1]).shape
        each = int(np.prod(weight[1:])) if node.op_type.startswith("Conv") else int(weight[-2])
        if node.op_type == "Gemm" and integer(node, "transB", 0):
            each = int(weight[1])
        found[str(node.outputs[0].name)] = each * int(np.prod(places, dtype=np.int64))
    return found
