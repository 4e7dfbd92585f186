"""A source that is quantized already, as floats again: a SoC has grids of its own.

Someone else's steps say nothing of what a SoC with powers of two computes, so the pairs of QuantizeLinear and
DequantizeLinear inside the network go and constants become floats. Where a pair cut off what is negative, a
Relu says so. Ports of integers keep their types: what converts them is `port_conversions`, for the Arm cores.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Names, names_of
from edgekit_converters.hub.nodes import Array, attr_int, constant, required
from edgekit_converters.hub.rewrite import remove_unread, replace
from edgekit_converters.quantize.grids import LIMITS

STEPS = 0.15
"""How far the float form may be from the quantized source, as a share of the output's range."""
_PORT = "port"
_SIGNED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "BatchNormalization")


def to_floats(model: ir.Model) -> bool:
    """Take the quantization out of `model`, in place; whether there was any."""
    nodes = [node for node in model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    names = names_of(model)
    for node in [item for item in nodes if item.op_type == "DequantizeLinear"]:
        _dequantize(model.graph, node, names)
    remove_unread(model.graph)
    for node in [item for item in nodes if item.op_type == "QuantizeLinear" and item.graph is model.graph]:
        build = Builder(names, hint=_PORT)
        replace(model.graph, node, build, [_to_integers(node, build)])
    return bool(nodes)


def port_conversions(model: ir.Model) -> list[str]:
    """First outputs of the nodes that convert a port of integers."""
    found = []
    for node in model.graph:
        name, read = str(node.outputs[0].name), str(node.inputs[0].name if node.inputs[0] else "")
        last = node.op_type == "Cast" and node.outputs[0].is_graph_output() and read.startswith(f"{_PORT}.")
        if name.startswith(f"{_PORT}.") or last:
            found.append(name)
    return found


def _dequantize(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    source = required(node, 0)
    known, maker = constant(source), source.producer()
    build = Builder(names, hint=str(node.outputs[0].name))
    if known is not None:
        made = build.const(_real(node, known))
    elif maker is not None and maker.op_type == "QuantizeLinear":
        made = required(maker, 0)
        before = made.producer()
        if _least(maker) == 0.0 and before is not None and before.op_type in _SIGNED:
            made = build("Relu", made)
    else:
        build = Builder(names, hint=_PORT)
        point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        shifted = build("Cast", source, to=int(ir.DataType.FLOAT))
        shifted = build("Sub", shifted, float(0 if point is None else point))
        made = build("Mul", shifted, float(np.asarray(constant(node.inputs[1]))))
    replace(graph, node, build, [made])


def _to_integers(node: ir.Node, build: Builder) -> ir.Value:
    kind = required(node, 2).dtype
    assert kind is not None
    low, high = LIMITS[kind.name.lower()]
    scale, point = (float(np.asarray(constant(node.inputs[i]))) for i in (1, 2))
    whole = build("Add", build("Round", build("Div", required(node, 0), scale)), point)
    return build("Cast", build("Clip", whole, float(low), float(high)), to=int(kind))


def _real(node: ir.Node, whole: Array) -> Array:
    """Float values of a constant."""
    scale = np.asarray(constant(node.inputs[1]), np.float64)
    point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    shift = np.zeros_like(scale) if point is None else np.asarray(point, np.float64)
    if scale.ndim == 1 and whole.ndim:
        around = [1] * whole.ndim
        around[attr_int(node, "axis", 1)] = -1
        scale, shift = scale.reshape(around), shift.reshape(around)
    return np.asarray((whole.astype(np.float64) - shift) * scale, np.float32)


def _least(node: ir.Node) -> float | None:
    """The least value that a QuantizeLinear can say, None where it is no single number."""
    scale, point = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or point is None or point.size != 1:
        return None
    return float((LIMITS[str(point.dtype)][0] - int(point.item())) * float(scale.item()))
