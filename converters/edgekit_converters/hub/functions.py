"""Bodies that ONNX itself gives for an operator, written out in place of the node.

Specification: the schema's function bodies (`onnx.defs`), static or made for the node's attributes
and input types. The body of the highest version up to the asked opset is taken.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from edgekit_converters.hub.build import OPSET, Builder, type_proto


def body(node: ir.Node, opset: int = OPSET) -> onnx.FunctionProto | None:
    """The function that computes `node`, None when its schema has none."""
    if not onnx.defs.has(node.op_type, opset, node.domain):
        return None
    # The stubs of onnx 1.22 leave out the methods that speak of functions.
    schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    if schema.has_context_dependent_function:
        return _made_for(node, schema, opset)
    versions = [v for v in schema.function_opset_versions if v <= opset]
    if not versions:
        return None
    found: bytes = schema.get_function_with_opset_version(max(versions))
    function: onnx.FunctionProto = onnx.FunctionProto.FromString(found)
    return function


def _made_for(node: ir.Node, schema: Any, opset: int) -> onnx.FunctionProto | None:
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    types = [onnx.TypeProto() if v is None else type_proto(v) for v in node.inputs]
    if not versions or any(item is None for item in types):
        return None
    proto = ir.serde.serialize_node(node).SerializeToString()
    given = [item.SerializeToString() for item in types if item is not None]
    try:
        found: bytes = schema.get_context_dependent_function_with_opset_version(max(versions), proto, given)
    except (RuntimeError, ValueError):
        return None
    function = onnx.FunctionProto.FromString(found)
    return function if function.node else None


def expand(node: ir.Node, build: Builder, opset: int = OPSET) -> list[ir.Value | None] | None:
    """Write the body of `node` with `build`; what stands for its outputs, None when there is no body."""
    function = body(node, opset)
    if function is None or any(_has_graph(item) for item in function.node):
        return None
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    attributes = _attributes(node, schema, function)
    known: dict[str, ir.Value | None] = {"": None}
    for index, name in enumerate(function.input):
        known[name] = node.inputs[index] if index < len(node.inputs) else None
    for item in function.node:
        _write(item, known, attributes, build)
    return [known.get(name) for name in function.output]


def _has_graph(node: onnx.NodeProto) -> bool:
    return any(item.HasField("g") or item.graphs for item in node.attribute)


def _attributes(
    node: ir.Node, schema: onnx.defs.OpSchema, function: onnx.FunctionProto
) -> dict[str, onnx.AttributeProto]:
    """The attributes a body refers to: the schema's defaults, then the function's, then the node's."""
    found = {name: item.default_value for name, item in schema.attributes.items() if item.default_value.name}
    found.update({item.name: item for item in function.attribute_proto})
    found.update({name: ir.serde.serialize_attribute(item) for name, item in node.attributes.items()})
    return found


def _write(
    item: onnx.NodeProto,
    known: dict[str, ir.Value | None],
    attributes: dict[str, onnx.AttributeProto],
    build: Builder,
) -> None:
    given = {}
    for attribute in item.attribute:
        proto = onnx.AttributeProto()
        proto.CopyFrom(
            attributes.get(attribute.ref_attr_name, proto) if attribute.ref_attr_name else attribute
        )
        if not proto.type:
            continue
        proto.name = attribute.name
        given[attribute.name] = ir.serde.deserialize_attribute(proto)
    inputs = [known[name] for name in item.input]
    made = ir.Node(item.domain, item.op_type, inputs, given.values(), num_outputs=len(item.output))
    if item.op_type == "Constant":
        known[item.output[0]] = build.constant_node(made)
    elif item.op_type == "Identity":
        known[item.output[0]] = inputs[0]
    else:
        known.update(zip(item.output, build.add(made), strict=True))
