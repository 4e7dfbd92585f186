"""Normalizations. Specification: onnx/docs/Operators.md; MIL's `batch_norm` and its kin.

MIL's parameters must be constant; with computed ones the formula itself is written out.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.hub import nodes
from edgekit_converters.targets.coreml.lower.node import Node, Var, choose, reshaped
from edgekit_converters.targets.coreml.lower.registry import lowers


def _column(node: Node, index: int) -> Var:
    """A parameter per channel, broadcastable over the channel axis of input 0."""
    shape = [1, -1] + [1] * (node.var(0).rank - 2)
    stored = node.constant(index)
    return (
        mb.const(val=node.weight(index).reshape(shape))
        if stored is not None
        else reshaped(node.var(index), shape)
    )


def _inference(node: ir.Node) -> bool:
    return not nodes.attr_int(node, "training_mode") and not any(nodes.used_outputs(node)[1:])


@lowers("BatchNormalization", when=_inference)
def _batch_norm(node: Node) -> Var:
    x, epsilon = node.var(0), np.float32(node.real("epsilon", 1e-5))
    constant = all(node.constant(index) is not None for index in range(1, 5))
    if constant and 3 <= x.rank <= 4:  # of rank 5 it crashes the runtime (executorch #11701)
        scale, bias, mean, variance = (node.weight(index) for index in range(1, 5))
        options = {"mean": mean, "variance": variance, "gamma": scale, "beta": bias, "epsilon": epsilon}
        if x.rank < 5:
            return mb.batch_norm(x=x, **options)
        # With five axes Apple's compiler crashes now and then.
        sizes = node.shape()
        flat = mb.batch_norm(x=reshaped(x, [*sizes[:3], sizes[3] * sizes[4]]), **options)
        return reshaped(flat, sizes)
    if x.rank < 2:
        node.refuse("no channel axis")
    scale, bias, mean, variance = (_column(node, index) for index in range(1, 5))
    factor = mb.real_div(x=scale, y=mb.sqrt(x=mb.add(x=variance, y=epsilon)))
    return mb.add(x=mb.mul(x=mb.sub(x=x, y=mean), y=factor), y=bias)


@lowers("InstanceNormalization")
def _instance_norm(node: Node) -> Var:
    x, epsilon = node.var(0), np.float32(node.real("epsilon", 1e-5))
    if node.constant(1) is not None and node.constant(2) is not None and x.rank in (3, 4):
        return mb.instance_norm(x=x, gamma=node.weight(1), beta=node.weight(2), epsilon=epsilon)
    normal = _normalized(x, list(range(2, x.rank)), epsilon)
    return mb.add(x=mb.mul(x=normal, y=_column(node, 1)), y=_column(node, 2))


def _normalized(x: Var, axes: list[int], epsilon: np.float32) -> Var:
    mean = mb.reduce_mean(x=x, axes=axes, keep_dims=True)
    centred = mb.sub(x=x, y=mean)
    variance = mb.reduce_mean(x=mb.mul(x=centred, y=centred), axes=axes, keep_dims=True)
    return mb.real_div(x=centred, y=mb.sqrt(x=mb.add(x=variance, y=epsilon)))


def _one_output(node: ir.Node) -> bool:
    return not any(nodes.used_outputs(node)[1:])


@lowers("LayerNormalization", when=_one_output)
def _layer_norm(node: Node) -> Var:
    x, axis = node.var(0), node.axis(default=-1)
    axes, epsilon = list(range(axis, x.rank)), np.float32(node.real("epsilon", 1e-5))
    sizes = node.shape()[axis:]
    scale, bias = node.constant(1), node.constant(2) if node.has(2) else np.zeros(sizes, np.float32)
    if scale is not None and bias is not None and [*scale.shape] == sizes == [*bias.shape]:
        gamma, beta = node.weight(1), np.asarray(bias, np.float32)
        return mb.layer_norm(x=x, axes=axes, gamma=gamma, beta=beta, epsilon=epsilon)
    found = mb.mul(x=mb.layer_norm(x=x, axes=axes, epsilon=epsilon), y=node.var(1))
    return mb.add(x=found, y=node.var(2)) if node.has(2) else found


def _odd(node: ir.Node) -> bool:
    return bool(nodes.attr_int(node, "size") % 2) and nodes.rank(node.inputs[0]) in (3, 4)


@lowers("LRN", when=_odd)
def _lrn(node: Node) -> Var:
    alpha, beta, bias = node.real("alpha", 1e-4), node.real("beta", 0.75), node.real("bias", 1.0)
    return mb.local_response_norm(
        x=node.var(0),
        size=node.integer("size"),
        alpha=np.float32(alpha),
        beta=np.float32(beta),
        k=np.float32(bias),
    )


@lowers("LpNormalization")
def _lp_norm(node: Node) -> Var:
    """Zero stays zero, as in onnxruntime."""
    x, axis = node.var(0), node.axis(default=-1)
    if node.integer("p", 2) == 1:
        length = mb.reduce_sum(x=mb.abs(x=x), axes=[axis], keep_dims=True)
    else:
        length = mb.sqrt(x=mb.reduce_sum(x=mb.mul(x=x, y=x), axes=[axis], keep_dims=True))
    none = mb.equal(x=length, y=np.float32(0))
    return mb.real_div(x=x, y=choose(none, np.float32(1), length))
