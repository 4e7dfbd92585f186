"""Types and shapes on every value, as far as onnx's inference and data propagation know them."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import shape_inference
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import type_proto
from edgekit_converters.hub.passes.base import Pass

# What data propagation may want to read: shapes, axes, indices. Weights stay out of the copy.
_SMALL = 128


class InferShapes(Pass):
    """Infer over the whole graph; one that inference does not follow is left as it is."""

    def call(self, model: ir.Model) -> PassResult:
        try:
            found = shape_inference.infer_shapes(_light(model), data_prop=True)
        except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
            return PassResult(model, False)
        graph = model.graph
        values = {out.name: out for node in graph for out in node.outputs if out.name}
        for item in (*found.graph.value_info, *found.graph.output):
            value = values.get(item.name)
            if value is not None:
                learn(value, item.type)
        return PassResult(model, True)


def learn(value: ir.Value, proto: onnx.TypeProto) -> None:
    """Write down what inference found of `value`."""
    if not proto.HasField("tensor_type"):
        if proto.WhichOneof("value") is not None:
            value.type = ir.serde.deserialize_type_proto_for_type(proto)
        return
    kind = proto.tensor_type
    if kind.elem_type:
        value.type = ir.TensorType(ir.DataType(kind.elem_type))
    if kind.HasField("shape"):
        value.shape = ir.Shape(
            [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
        )


def _light(model: ir.Model) -> onnx.ModelProto:
    """A copy of the graph in which big constants are inputs."""
    source = model.graph
    graph = onnx.GraphProto(name="light")
    for value in source.inputs:
        graph.input.append(onnx.ValueInfoProto(name=value.name, type=type_proto(value)))
    for value in source.initializers.values():
        if value.is_graph_input() or value.const_value is None:
            continue
        if value.const_value.size <= _SMALL:
            graph.initializer.append(ir.serde.serialize_tensor(value.const_value))
            graph.initializer[-1].name = value.name or ""
        else:
            graph.input.append(onnx.ValueInfoProto(name=value.name, type=type_proto(value)))
    graph.node.extend(ir.serde.serialize_node(node) for node in source)
    for value in source.outputs:
        graph.output.append(onnx.ValueInfoProto(name=value.name, type=type_proto(value)))
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return onnx.ModelProto(ir_version=10, graph=graph, opset_import=imports)
