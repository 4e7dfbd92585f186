"""An ONNX graph rebuilt op by op as a TensorFlow function, for TFLiteConverter.

The set of ops is `SUPPORTED`; anything else, or an attribute not listed in an op's function, is
refused with the node named: nothing is guessed. Layout is solved while walking: a value is held
either as ONNX has it or channels-last; convolution and pooling make it channels-last, element-wise
ops keep what they get, everything else asks for ONNX's layout, so that a plain CNN gets one
transposition at its input and one where its feature map ends. Where a free batch leaves computed
shapes in the graph, the batch is fixed at one. Imported in TensorFlow workers only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import helper, numpy_helper

from edgekit_converters.errors import Refusal
from edgekit_converters.hub import with_batch_one


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor and whether its axis 1 (channels) was moved to the end; `constant` keeps numpy."""

    tensor: Any
    last: bool = False
    constant: Any = None


class Node:
    """One ONNX node with its attributes and input values."""

    def __init__(self, proto: onnx.NodeProto, inputs: Sequence[Value | None]) -> None:
        self.op, self.name = proto.op_type, proto.name or (proto.output[0] if proto.output else "")
        self.inputs = inputs
        self._attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute; bytes become text."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        """Input `index`."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise self.refuse(f"input {index} is missing")
        return found

    def plain(self, index: int) -> Any:
        """Input `index` in ONNX's layout."""
        return _plain(self.value(index))

    def channels_last(self, index: int) -> Any:
        """Input `index` channels-last."""
        value = self.value(index)
        return value.tensor if value.last else _moved(value.tensor, to_last=True)

    def constant(self, index: int) -> Any:
        """Input `index` as a numpy array; refused when it is computed."""
        value = self.value(index)
        if value.constant is None:
            raise self.refuse(f"input {index} must be constant", "requires_constant_input")
        return value.constant

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Whole numbers from input `index` (newer opsets) or attribute `name` (older ones)."""
        if self.has(index):
            return [int(item) for item in np.atleast_1d(self.constant(index))]
        found = self.attribute(name, None)
        return None if found is None else [int(item) for item in np.atleast_1d(found)]

    def refuse(self, why: str, code: str = "unsupported_attribute") -> Refusal:
        """The refusal that names this node."""
        return Refusal(
            f"{self.op} node {self.name!r}: {why}",
            remedy="export the model with simpler ops, or use the onnx target",
            code=code,
        )


def rebuild(path: Path) -> Any:
    """The graph at `path` (opset 13 or later) as a concrete TensorFlow function.

    Raises:
        Refusal: ``unsupported_op`` or ``unsupported_attribute``, with the node named.
    """
    graph = onnx.load(path).graph
    if _unknown(graph):
        graph = with_batch_one(path).graph
    unknown = _unknown(graph)
    if unknown:
        raise Refusal(
            f"no sound route for {', '.join(unknown)}",
            remedy="use the onnx target, or convert from the Keras model or SavedModel",
            code="unsupported_op",
        )
    specs = [
        tf.TensorSpec(
            _dims(item), helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type), name=f"in{i}"
        )
        for i, item in enumerate(graph.input)
    ]

    def body(*tensors: Any) -> list[Any]:
        values: dict[str, Value] = {}
        for item in graph.initializer:
            array = numpy_helper.to_array(item)
            values[item.name] = Value(tensor=array, constant=array)
        for item, tensor in zip(graph.input, tensors, strict=True):
            values[item.name] = Value(tensor=tensor)
        for proto in graph.node:
            node = Node(proto, [values.get(name) if name else None for name in proto.input])
            for name, value in zip(proto.output, SUPPORTED[proto.op_type](node), strict=False):
                values[name] = value
        return [tf.identity(_plain(values[item.name])) for item in graph.output]

    return tf.function(body, input_signature=specs, autograph=False).get_concrete_function()


def _unknown(graph: onnx.GraphProto) -> list[str]:
    return sorted({node.op_type for node in graph.node} - set(SUPPORTED))


def _dims(item: onnx.ValueInfoProto) -> list[int | None]:
    return [d.dim_value if d.HasField("dim_value") else None for d in item.type.tensor_type.shape.dim]


def _moved(tensor: Any, *, to_last: bool) -> Any:
    rank = len(tensor.shape)
    order = [0, *range(2, rank), 1] if to_last else [0, rank - 1, *range(1, rank - 1)]
    return tf.transpose(tensor, order)


def _plain(value: Value) -> Any:
    return _moved(value.tensor, to_last=False) if value.last else value.tensor


def _unary(function: Callable[[Any], Any]) -> Callable[[Node], list[Value]]:
    def lower(node: Node) -> list[Value]:
        value = node.value(0)
        return [Value(tensor=function(value.tensor), last=value.last)]

    return lower


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Node], list[Value]]:
    def lower(node: Node) -> list[Value]:
        a, b = node.value(0), node.value(1)
        rank = max(len(a.tensor.shape), len(b.tensor.shape))
        if not (a.last or b.last):
            return [Value(tensor=function(a.tensor, b.tensor))]
        return [Value(tensor=function(_aligned(a, rank), _aligned(b, rank)), last=True)]

    return lower


def _aligned(value: Value, rank: int) -> Any:
    """A broadcast operand in the channels-last order of `rank` axes."""
    size = len(value.tensor.shape)
    if value.last or size == 0:
        return value.tensor
    tensor = (
        tf.reshape(value.tensor, [1] * (rank - size) + list(value.tensor.shape))
        if size < rank
        else value.tensor
    )
    return _moved(tensor, to_last=True)


def _conv(node: Node) -> list[Value]:
    """Conv with 1 or 2 spatial axes: any stride, dilation, padding; groups 1 or depthwise."""
    weight = node.constant(1)
    spatial = weight.ndim - 2
    if spatial not in (1, 2):
        raise node.refuse(f"{spatial} spatial axes")
    x = node.channels_last(0)
    channels, groups = int(x.shape[-1]), int(node.attribute("group", 1))
    strides = list(node.attribute("strides", [1] * spatial))
    dilations = list(node.attribute("dilations", [1] * spatial))
    pads = _pads(node, x, weight.shape[2:], strides, dilations)
    x = tf.pad(x, [[0, 0], *pads, [0, 0]]) if any(map(any, pads)) else x
    if spatial == 1:
        x, weight = tf.expand_dims(x, 1), weight[:, :, None, :]
        strides, dilations = [1, *strides], [1, *dilations]
    if groups == 1:
        y = tf.nn.conv2d(x, weight.transpose(2, 3, 1, 0), strides, "VALID", dilations=dilations)
    elif groups == channels and weight.shape[1] == 1:
        y = _depthwise(node, x, weight, strides, dilations)
    else:
        raise node.refuse(f"group {groups} of {channels} channels")
    y = tf.squeeze(y, 1) if spatial == 1 else y
    return [Value(tensor=tf.nn.bias_add(y, node.constant(2)) if node.has(2) else y, last=True)]


def _depthwise(node: Node, x: Any, weight: Any, strides: list[int], dilations: list[int]) -> Any:
    channels = int(x.shape[-1])
    multiplier = weight.shape[0] // channels
    kernel = weight[:, 0].reshape(channels, multiplier, *weight.shape[2:]).transpose(2, 3, 0, 1)
    if strides[0] != strides[1]:
        raise node.refuse("depthwise with unequal strides")
    return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], "VALID", dilations=dilations)


def _pads(
    node: Node, x: Any, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[list[int]]:
    """Padding (before, after) of each spatial axis."""
    spatial = len(kernel)
    mode = node.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(node.attribute("pads", [0] * 2 * spatial)) if mode == "NOTSET" else [0] * 2 * spatial
        return [[int(pads[i]), int(pads[i + spatial])] for i in range(spatial)]
    result = []
    for size, k, s, d in zip(x.shape[1:-1], kernel, strides, dilations, strict=True):
        if size is None:
            raise node.refuse("auto_pad on a free axis", "dynamic_shape")
        total = max(0, (-(-int(size) // s) - 1) * s + (k - 1) * d + 1 - int(size))
        small = total // 2
        result.append([small, total - small] if mode == "SAME_UPPER" else [total - small, small])
    return result


def _pool(node: Node) -> list[Value]:
    """MaxPool and AveragePool over 2 axes, padding included, without dilation, ceil_mode 0."""
    kernel = list(node.attribute("kernel_shape", []))
    strides = list(node.attribute("strides", [1] * len(kernel)))
    if len(kernel) != 2 or node.attribute("ceil_mode", 0) or max(node.attribute("dilations", [1])) > 1:
        raise node.refuse("only 2 axes, ceil_mode 0 and no dilation")
    x = node.channels_last(0)
    pads = _pads(node, x, kernel, strides, [1, 1])
    padding = [[0, 0], *pads, [0, 0]]
    if node.op == "MaxPool":
        lowest = float(np.finfo(np.float32).min)
        x = tf.pad(x, padding, constant_values=lowest) if any(map(any, pads)) else x
        return [Value(tensor=tf.nn.max_pool2d(x, kernel, strides, "VALID"), last=True)]
    if not any(map(any, pads)):
        return [Value(tensor=tf.nn.avg_pool2d(x, kernel, strides, "VALID"), last=True)]
    y = tf.nn.avg_pool2d(tf.pad(x, padding), kernel, strides, "VALID")
    if not node.attribute("count_include_pad", 0):
        ones = tf.ones([1, int(x.shape[1]), int(x.shape[2]), 1])
        y = y / tf.nn.avg_pool2d(tf.pad(ones, padding), kernel, strides, "VALID")
    return [Value(tensor=y, last=True)]


def _global_average(node: Node) -> list[Value]:
    x = node.channels_last(0)
    axes = list(range(1, len(x.shape) - 1))
    return [Value(tensor=tf.reduce_mean(x, axes, keepdims=True), last=True)]


def _reduce(function: Callable[..., Any]) -> Callable[[Node], list[Value]]:
    def lower(node: Node) -> list[Value]:
        axes = node.numbers(1, "axes")
        keep = bool(node.attribute("keepdims", 1))
        value = node.value(0)
        rank = len(value.tensor.shape)
        spatial = sorted(a % rank for a in axes or []) == list(range(2, rank))
        if value.last and spatial:
            # Over the spatial axes no transposition is needed, with or without keeping them.
            return [Value(tensor=function(value.tensor, list(range(1, rank - 1)), keepdims=keep), last=keep)]
        return [Value(tensor=function(_plain(value), axes, keepdims=keep))]

    return lower


def _batch_norm(node: Node) -> list[Value]:
    x, last = node.value(0).tensor, node.value(0).last
    scale, bias, mean, variance = (node.constant(i) for i in range(1, 5))
    factor = scale / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    shape = [-1] if last or len(x.shape) == 2 else [-1] + [1] * (len(x.shape) - 2)
    shift = bias - mean * factor
    return [Value(tensor=x * factor.reshape(shape) + shift.reshape(shape), last=last)]


def _gemm(node: Node) -> list[Value]:
    a, b = node.plain(0), node.plain(1)
    y = tf.matmul(
        a, b, transpose_a=bool(node.attribute("transA", 0)), transpose_b=bool(node.attribute("transB", 0))
    )
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    y = y if alpha == 1 else y * alpha
    if node.has(2):
        c = node.plain(2)
        y = y + (c if beta == 1 else c * beta)
    return [Value(tensor=y)]


def _softmax(node: Node) -> list[Value]:
    x = node.plain(0)
    return [Value(tensor=tf.nn.softmax(x, axis=int(node.attribute("axis", -1))))]


def _clip(node: Node) -> list[Value]:
    value = node.value(0)
    low = float(node.constant(1)) if node.has(1) else node.attribute("min", None)
    high = float(node.constant(2)) if node.has(2) else node.attribute("max", None)
    x = value.tensor
    if (low, high) == (0.0, 6.0):
        return [Value(tensor=tf.nn.relu6(x), last=value.last)]
    x = x if low is None else tf.maximum(x, low)
    return [Value(tensor=x if high is None else tf.minimum(x, high), last=value.last)]


def _reshape(node: Node) -> list[Value]:
    """Reshape to constants; 0 copies an axis, which must be known unless it is the batch."""
    x, wanted = node.plain(0), [int(v) for v in node.constant(1)]
    if node.attribute("allowzero", 0):
        raise node.refuse("allowzero")
    sizes: list[Any] = []
    for index, size in enumerate(wanted):
        known = x.shape[index] if size == 0 else size
        sizes.append(tf.shape(x)[index] if known is None else int(known))
    return [Value(tensor=tf.reshape(x, sizes))]


def _flatten(node: Node) -> list[Value]:
    x, axis = node.plain(0), int(node.attribute("axis", 1))
    rest = x.shape[axis:]
    if axis != 1 or any(size is None for size in rest):
        raise node.refuse(f"axis {axis} of {x.shape}")
    return [Value(tensor=tf.reshape(x, [-1, int(np.prod([int(s) for s in rest]))]))]


def _transpose(node: Node) -> list[Value]:
    value = node.value(0)
    rank = len(value.tensor.shape)
    order = list(node.attribute("perm", range(rank - 1, -1, -1)))
    if value.last and order == [0, *range(2, rank), 1]:
        return [Value(tensor=value.tensor)]  # exporters undo their own layout: nothing is left to do
    if not value.last and order == [0, rank - 1, *range(1, rank - 1)] and rank > 2:
        return [Value(tensor=value.tensor, last=True)]
    return [Value(tensor=tf.transpose(_plain(value), order))]


def _concat(node: Node) -> list[Value]:
    values = [item for item in node.inputs if item is not None]
    axis = int(node.attribute("axis", 0))
    rank = len(values[0].tensor.shape)
    if all(item.last for item in values):
        place = axis % rank
        moved = 0 if place == 0 else rank - 1 if place == 1 else place - 1
        return [Value(tensor=tf.concat([item.tensor for item in values], moved), last=True)]
    return [Value(tensor=tf.concat([_plain(item) for item in values], axis))]


def _pad(node: Node) -> list[Value]:
    if node.attribute("mode", "constant") != "constant" or node.has(3):
        raise node.refuse("only constant padding of all axes")
    pads = node.numbers(1, "pads") or []
    value = float(node.constant(2)) if node.has(2) else float(node.attribute("value", 0.0))
    x = node.plain(0)
    rank = len(x.shape)
    return [Value(tensor=tf.pad(x, [[pads[i], pads[i + rank]] for i in range(rank)], constant_values=value))]


def _squeeze(node: Node) -> list[Value]:
    axes = node.numbers(1, "axes")
    if axes is None:
        raise node.refuse("axes must be given")
    return [Value(tensor=tf.squeeze(node.plain(0), axes))]


def _unsqueeze(node: Node) -> list[Value]:
    axes = node.numbers(1, "axes") or []
    x = node.plain(0)
    rank = len(x.shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = tf.expand_dims(x, axis)
    return [Value(tensor=x)]


def _cast(node: Node) -> list[Value]:
    dtype = helper.tensor_dtype_to_np_dtype(int(node.attribute("to", 1)))
    value = node.value(0)
    return [Value(tensor=tf.cast(value.tensor, dtype), last=value.last)]


def _hard_sigmoid(node: Node) -> list[Value]:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    value = node.value(0)
    return [Value(tensor=tf.clip_by_value(value.tensor * alpha + beta, 0.0, 1.0), last=value.last)]


def _leaky(node: Node) -> list[Value]:
    value = node.value(0)
    return [Value(tensor=tf.nn.leaky_relu(value.tensor, node.attribute("alpha", 0.01)), last=value.last)]


def _dropout(node: Node) -> list[Value]:
    return [node.value(0)]


SUPPORTED: dict[str, Callable[[Node], list[Value]]] = {
    "Abs": _unary(tf.abs),
    "Add": _binary(tf.add),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _binary(tf.divide),
    "Dropout": _dropout,
    "Exp": _unary(tf.exp),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _dropout,
    "LeakyRelu": _leaky,
    "MatMul": lambda node: [Value(tensor=tf.matmul(node.plain(0), node.plain(1)))],
    "MaxPool": _pool,
    "Mul": _binary(tf.multiply),
    "Neg": _unary(tf.negative),
    "Pad": _pad,
    "ReduceMax": _reduce(tf.reduce_max),
    "ReduceMean": _reduce(tf.reduce_mean),
    "ReduceSum": _reduce(tf.reduce_sum),
    "Reciprocal": _unary(tf.math.reciprocal),
    "Relu": _unary(tf.nn.relu),
    "Reshape": _reshape,
    "Sigmoid": _unary(tf.nn.sigmoid),
    "Softmax": _softmax,
    "Sqrt": _unary(tf.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(tf.subtract),
    "Tanh": _unary(tf.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""ONNX op type → its function: the documented op set of this route."""
