"""A factor and an offset for each channel go into the layer before: BatchNormalization, Mul, Add, Sub, Div.

The layer before is a Conv, ConvTranspose, Gemm or BatchNormalization with constant weights that
nobody else reads. Computed in float64.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import Builder, Names, names_of
from edgekit_converters.hub.nodes import Array, attr_float, attr_int, constant, is_float, operand, rank
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import AT_OPSET, NO_DROPOUT
from edgekit_converters.hub.rewrite import builder_for, replace

_MAKERS = frozenset({"Conv", "ConvTranspose", "Gemm", "BatchNormalization"})
_ARITHMETIC = frozenset({"Mul", "Div", "Add", "Sub"})


class FuseAffine(Pass):
    """See the module."""

    requires = (AT_OPSET, NO_DROPOUT)

    def call(self, model: ir.Model) -> PassResult:
        names, changed = names_of(model), False
        for node in list(model.graph):
            if not node.domain and (node.op_type == "BatchNormalization" or node.op_type in _ARITHMETIC):
                changed |= _fuse(model.graph, node, names)
        return PassResult(model, changed)


def _fuse(graph: ir.Graph, node: ir.Node, names: Names) -> bool:
    for value in node.inputs[: 2 if node.op_type in _ARITHMETIC else 1]:
        maker = None if value is None else value.producer()
        if value is None or maker is None or maker.op_type not in _MAKERS or maker.domain:
            continue
        if len(value.uses()) > 1 or value.is_graph_output() or not is_float(value):
            continue
        affine = _affine(node, value, _channels(maker))
        build = builder_for(node, names)
        fused = None if affine is None else _fused(maker, build, *affine)
        if fused is not None:
            replace(graph, node, build, [fused])
            graph.remove(maker, safe=True)
            return True
    return False


def _channels(maker: ir.Node) -> int | None:
    """How many channels the layer computes, when its weights are constant."""
    weight = constant(operand(maker, 1))
    if weight is None:
        return None
    if maker.op_type == "Gemm":
        return int(weight.shape[0 if attr_int(maker, "transB") else 1])
    if maker.op_type == "ConvTranspose":
        return int(weight.shape[1]) * attr_int(maker, "group", 1)
    return int(weight.shape[0])


def _affine(node: ir.Node, value: ir.Value, channels: int | None) -> tuple[Array, Array] | None:
    """Factor and offset of `node` for each channel of `value`."""
    if channels is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "BatchNormalization":
        known = [item for item in map(constant, node.inputs[1:5]) if item is not None]
        if len(known) != 4:
            return None
        scale, shift, mean, var = (item.astype(np.float64) for item in known)
        factor = scale / np.sqrt(var + attr_float(node, "epsilon", 1e-5))
        return factor, shift - mean * factor
    first = node.inputs[0] is value
    other = _per_channel(constant(node.inputs[1 if first else 0]), rank(value), channels)
    if other is None or (not first and node.op_type == "Div"):
        return None
    if node.op_type == "Mul":
        return other, zero
    if node.op_type == "Div":
        return one / other, zero
    if node.op_type == "Add":
        return one, other
    return (one, -other) if first else (-one, other)


def _per_channel(array: Array | None, size: int | None, channels: int) -> Array | None:
    """A constant that broadcasts along the channels, as one number each."""
    if array is None or size is None or array.ndim > size:
        return None
    shape = (1,) * (size - array.ndim) + array.shape
    if any(count != 1 for axis, count in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))


def _fused(maker: ir.Node, build: Builder, factor: Array, offset: Array) -> ir.Value | None:
    """`maker` with the factor and the offset in its weights; None when it cannot take them."""
    if not (np.isfinite(factor).all() and np.isfinite(offset).all()):
        return None
    if maker.op_type == "BatchNormalization":
        return _into_norm(maker, build, factor, offset)
    weight, bias = constant(operand(maker, 1)), constant(operand(maker, 2))
    if weight is None or (operand(maker, 2) is not None and bias is None):
        return None
    base = np.zeros(len(factor)) if bias is None else bias.astype(np.float64)
    beta = 1.0
    if maker.op_type == "Gemm":
        # The product carries alpha, the bias beta.
        beta = attr_float(maker, "beta", 1.0) if bias is not None else 1.0
        if beta == 0 or base.size not in (1, len(factor)) or (base.ndim == 2 and base.shape[0] != 1):
            return None
        base = np.broadcast_to(base.reshape(-1), factor.shape)
    wide = _scaled(maker, weight.astype(np.float64), factor).astype(weight.dtype)
    new_bias = ((base * beta * factor + offset) / beta).astype(weight.dtype)
    return build.again(maker, maker.inputs[0], wide, new_bias)[0]


def _into_norm(maker: ir.Node, build: Builder, factor: Array, offset: Array) -> ir.Value | None:
    scale, bias = constant(operand(maker, 1)), constant(operand(maker, 2))
    if scale is None or bias is None:
        return None
    new = (scale * factor).astype(scale.dtype), (bias * factor + offset).astype(bias.dtype)
    return build.again(maker, maker.inputs[0], *new, *maker.inputs[3:])[0]


def _scaled(maker: ir.Node, weight: Array, factor: Array) -> Array:
    """The weights times the factor of their output channel."""
    if maker.op_type == "Gemm":
        return weight * (factor[:, None] if attr_int(maker, "transB") else factor)
    ones = (1,) * (weight.ndim - 2)
    if maker.op_type == "Conv":
        return weight * factor.reshape(-1, 1, *ones)
    group = attr_int(maker, "group", 1)
    parts = factor.reshape(group, 1, -1)
    split = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    return (split * parts.reshape(*parts.shape, *ones)).reshape(weight.shape)
