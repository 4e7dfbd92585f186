"""BatchNormalization goes into the convolution or matrix product before it. Computed in float64."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import Names, names_of
from edgekit_converters.hub.nodes import Array, attr_float, attr_int, constant, operand
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import AT_OPSET, NO_DROPOUT
from edgekit_converters.hub.rewrite import builder_for, replace

_MAKERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


class FuseBatchNorm(Pass):
    """Conv, ConvTranspose or Gemm with constant weights, read by one BatchNormalization only."""

    requires = (AT_OPSET, NO_DROPOUT)

    def call(self, model: ir.Model) -> PassResult:
        names, changed = names_of(model), False
        for node in list(model.graph):
            if node.op_type == "BatchNormalization" and not node.domain:
                changed |= _fuse(model.graph, node, names)
        return PassResult(model, changed)


def _fuse(graph: ir.Graph, norm: ir.Node, names: Names) -> bool:
    value = norm.inputs[0]
    maker = None if value is None else value.producer()
    if maker is None or value is None or maker.op_type not in _MAKERS or maker.domain:
        return False
    if len(value.uses()) > 1 or value.is_graph_output():
        return False
    statistics = [constant(item) for item in norm.inputs[1:5]]
    weight, bias = constant(operand(maker, 1)), constant(operand(maker, 2))
    if weight is None or (operand(maker, 2) is not None and bias is None):
        return False
    known = [item for item in statistics if item is not None]
    if len(known) != 4 or (maker.op_type == "Gemm" and (bias is None or bias.ndim != 1 or bias.size == 1)):
        return False
    scale, shift, mean, var = (item.astype(np.float64) for item in known)
    factor = scale / np.sqrt(var + attr_float(norm, "epsilon", 1e-5))
    base = 0.0 if bias is None else bias.astype(np.float64)
    if maker.op_type == "Gemm":
        # The product carries alpha, the bias beta.
        beta = attr_float(maker, "beta", 1.0)
        if beta == 0:
            return False
        new_bias = (base * factor * beta + shift - mean * factor) / beta
    else:
        new_bias = (base - mean) * factor + shift
    build = builder_for(norm, names)
    wide = _scaled(maker, weight.astype(np.float64), factor).astype(weight.dtype)
    fused = build.again(maker, maker.inputs[0], wide, new_bias.astype(weight.dtype))
    replace(graph, norm, build, [fused[0]])
    graph.remove(maker, safe=True)
    return True


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
