"""`ZipMap` taken away: a sequence of maps from class to score becomes the tensor of scores."""

from __future__ import annotations

import onnx


def without_zip_maps(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the tensor under the map's name; `model` itself if it has no ZipMap.

    What a ZipMap gives is only ever an output: no op takes it.
    """
    maps = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "ZipMap"}
    if not maps:
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.node[:]
    for node in model.graph.node:
        if node.op_type == "ZipMap":
            replaced = onnx.helper.make_node("Identity", list(node.input), list(node.output), name=node.name)
            found.graph.node.append(replaced)
        else:
            found.graph.node.append(node)
    for port in found.graph.output:
        if port.name in maps:
            port.type.CopyFrom(onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
            port.type.tensor_type.shape.dim.add().dim_param = "N"
            port.type.tensor_type.shape.dim.add().dim_param = f"{port.name}_classes"
    return found
