"""One ONNX graph through our lowering, saved, loaded again and emulated, beside onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from tests.converters.graphs import Array
from tests.converters.mil_packages import coremltools, quiet


def node_model(
    kind: str,
    inputs: Mapping[str, Array],
    *,
    constants: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    order: Sequence[str] | None = None,
    free: Mapping[str, Sequence[int | str]] | None = None,
    opset: int = 21,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node. `order` names all operands (an empty one is left out), `free` gives shapes."""
    stored = constants or {}
    names = list(order or (*inputs, *stored))
    node = helper.make_node(kind, names, list(outputs), **attributes)
    return graph_model([node], inputs, outputs, constants=stored, free=free, opset=opset)


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    constants: Mapping[str, Array] | None = None,
    free: Mapping[str, Sequence[int | str]] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    """A model of several nodes, its outputs' types inferred."""
    shapes = free or {}
    ports = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), list(shapes.get(name, value.shape))
        )
        for name, value in inputs.items()
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    empty = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(list(nodes), "test", ports, empty, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    known = {item.name: item for item in onnx.shape_inference.infer_shapes(model).graph.output}
    for item in model.graph.output:
        item.CopyFrom(known[item.name])
    assert all(item.type.tensor_type.elem_type != TensorProto.UNDEFINED for item in model.graph.output)
    return model


def reference(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime makes of it."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def lowered(model: onnx.ModelProto, **options: Any) -> Any:
    """Our lowering's result."""
    coremltools()
    from edgekit_converters import hub
    from edgekit_converters.targets.coreml.lower import lower

    with quiet():
        return lower(hub.canonical(model, where="test").model, **options)


def emulated(
    model: onnx.ModelProto, inputs: Mapping[str, Array], *, rounding: str = "float32", **options: Any
) -> dict[str, Array]:
    """What the saved package says, in the source's types."""
    made = lowered(model, **options)
    from edgekit_converters.targets.coreml.evaluate import Evaluator
    from edgekit_converters.targets.coreml.lower import save

    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "model.mlpackage"
        save(made, path)
        found: dict[str, Array] = made.from_artifact(
            Evaluator(path, precision=rounding).run(made.to_artifact(inputs))
        )
    return found


def same(
    model: onnx.ModelProto,
    inputs: Mapping[str, Array],
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    **options: Any,
) -> None:
    """Assert that the package and onnxruntime give the same types, shapes and numbers."""
    wanted, found = reference(model, inputs), emulated(model, inputs, **options)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=atol)
