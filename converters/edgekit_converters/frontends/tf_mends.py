"""What the TensorFlow exporter leaves undone: ops it knows no ONNX for, rewritten or refused by name.

1. ``Erfc(x)`` (Keras' exact GELU) becomes ``1 - Erf(x)``, which is its definition;
2. any other op that is not in the ONNX standard is refused, before a runtime stumbles over it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.errors import SourceError


def mend(model: onnx.ModelProto, *, where: str) -> None:
    """Rewrite what can be rewritten, in place.

    Raises:
        SourceError: an op that is neither standard nor known here; `code` is ``unsupported_op``.
    """
    types = {item.name: item.type.tensor_type.elem_type for item in model.graph.value_info}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.extend(_erfc(model.graph, node, types) if node.op_type == "Erfc" else (node,))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for node in nodes:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
            raise SourceError(
                f"node {node.name!r}: op {node.op_type} has no ONNX form here",
                where=where,
                remedy="replace the layer, or convert for a tflite target, which does not need one",
                code="unsupported_op",
            )


def _erfc(
    graph: onnx.GraphProto, node: onnx.NodeProto, types: dict[str, int]
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    one, inner = f"{node.output[0]}__one", f"{node.output[0]}__erf"
    kind = types.get(node.input[0]) or types.get(node.output[0]) or onnx.TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph.initializer.append(numpy_helper.from_array(np.ones((), dtype), one))
    return (
        helper.make_node("Erf", [node.input[0]], [inner], name=f"{node.name}__erf"),
        helper.make_node("Sub", [one, inner], [node.output[0]], name=node.name),
    )


__all__ = ["mend"]
