"""The hub's ops as MIL ops. `SUPPORTED` is the documented set; anything else is refused by name.

Specification: onnx/docs/Operators.md and coremltools' MIL ops reference. Core ML is channels-first
like ONNX, so no layout has to change. The batch is one. Imported in coremltools workers only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from onnx import helper, numpy_helper

from edgekit_converters.errors import Refusal


class Node:
    """One ONNX node; inputs are numpy arrays (constants) or MIL values."""

    def __init__(self, proto: onnx.NodeProto, inputs: Sequence[Any]) -> None:
        self.op, self.name, self.inputs = proto.op_type, proto.name, inputs
        self._attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute; bytes become text."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def constant(self, index: int) -> Any:
        """Input `index` as a numpy array; refused when it is computed."""
        value = self.inputs[index]
        if not isinstance(value, np.ndarray):
            raise self.refuse(f"input {index} must be constant", "requires_constant_input")
        return value

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Whole numbers from input `index` (newer opsets) or attribute `name` (older ones)."""
        found = self.constant(index) if self.has(index) else self.attribute(name, None)
        return None if found is None else [int(item) for item in np.atleast_1d(found)]

    def refuse(self, why: str, code: str = "unsupported_attribute") -> Refusal:
        """The refusal that names this node."""
        return Refusal(
            f"{self.op} node {self.name!r}: {why}", remedy="export the model with simpler ops", code=code
        )


def lower(graph: onnx.GraphProto, inputs: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
    """Emit `graph` into the MIL program being built.

    Args:
        graph: the hub's graph.
        inputs: MIL values in the graph's order.
        outputs: names for the program's outputs, in the graph's order.

    Raises:
        Refusal: ``unsupported_op`` or ``unsupported_attribute``, with the node named.
    """
    unknown = sorted({node.op_type for node in graph.node} - set(SUPPORTED))
    if unknown:
        raise Refusal(
            f"no sound route for {', '.join(unknown)}",
            remedy="export the model with simpler ops",
            code="unsupported_op",
        )
    values: dict[str, Any] = {item.name: _narrow(numpy_helper.to_array(item)) for item in graph.initializer}
    values.update(zip((item.name for item in graph.input), inputs, strict=True))
    for proto in graph.node:
        node = Node(proto, [values.get(name) if name else None for name in proto.input])
        values[proto.output[0]] = SUPPORTED[proto.op_type](node)
    return [
        mb.identity(x=values[item.name], name=name) for item, name in zip(graph.output, outputs, strict=True)
    ]


def _narrow(array: Any) -> Any:
    """int64 constants as int32, which MIL computes with; values beyond it are refused."""
    if array.dtype != np.int64:
        return array
    limits = np.iinfo(np.int32)
    return np.clip(array, limits.min, limits.max).astype(np.int32)


def _unary(function: Callable[..., Any]) -> Callable[[Node], Any]:
    return lambda node: function(x=node.inputs[0])


def _binary(function: Callable[..., Any]) -> Callable[[Node], Any]:
    return lambda node: function(x=node.inputs[0], y=node.inputs[1])


def _padding(node: Node, spatial: int) -> dict[str, Any]:
    mode = node.attribute("auto_pad", "NOTSET")
    if mode == "SAME_UPPER":
        return {"pad_type": "same"}
    if mode == "SAME_LOWER":
        return {"pad_type": "same_lower"}
    pads = list(node.attribute("pads", [0] * 2 * spatial))
    if mode == "VALID" or not any(pads):
        return {"pad_type": "valid"}
    return {"pad_type": "custom", "pad": [p for i in range(spatial) for p in (pads[i], pads[i + spatial])]}


def _conv(node: Node) -> Any:
    weight = node.constant(1)
    spatial = weight.ndim - 2
    if spatial not in (1, 2):
        raise node.refuse(f"{spatial} spatial axes")
    extra = {"bias": node.constant(2)} if node.has(2) else {}
    return mb.conv(
        x=node.inputs[0],
        weight=weight,
        strides=list(node.attribute("strides", [1] * spatial)),
        dilations=list(node.attribute("dilations", [1] * spatial)),
        groups=int(node.attribute("group", 1)),
        **_padding(node, spatial),
        **extra,
    )


def _pool(node: Node) -> Any:
    kernel = list(node.attribute("kernel_shape", []))
    if node.attribute("ceil_mode", 0) or max(node.attribute("dilations", [1])) > 1:
        raise node.refuse("only ceil_mode 0 and no dilation")
    common = {
        "x": node.inputs[0],
        "kernel_sizes": kernel,
        "strides": list(node.attribute("strides", [1] * len(kernel))),
        **_padding(node, len(kernel)),
    }
    if node.op == "MaxPool":
        return mb.max_pool(**common)
    return mb.avg_pool(**common, exclude_padding_from_average=not node.attribute("count_include_pad", 0))


def _global_average(node: Node) -> Any:
    rank = node.inputs[0].rank
    return mb.reduce_mean(x=node.inputs[0], axes=list(range(2, rank)), keep_dims=True)


def _reduce(function: Callable[..., Any]) -> Callable[[Node], Any]:
    def emit(node: Node) -> Any:
        axes = node.numbers(1, "axes")
        found = list(range(node.inputs[0].rank)) if axes is None else axes
        return function(x=node.inputs[0], axes=found, keep_dims=bool(node.attribute("keepdims", 1)))

    return emit


def _batch_norm(node: Node) -> Any:
    scale, bias, mean, variance = (node.constant(i) for i in range(1, 5))
    epsilon = float(node.attribute("epsilon", 1e-5))
    if node.inputs[0].rank < 3:
        factor = scale / np.sqrt(variance + epsilon)
        return mb.add(x=mb.mul(x=node.inputs[0], y=factor), y=bias - mean * factor)
    return mb.batch_norm(
        x=node.inputs[0], mean=mean, variance=variance, gamma=scale, beta=bias, epsilon=epsilon
    )


def _gemm(node: Node) -> Any:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    y = mb.matmul(
        x=node.inputs[0],
        y=node.inputs[1],
        transpose_x=bool(node.attribute("transA", 0)),
        transpose_y=bool(node.attribute("transB", 0)),
    )
    y = y if alpha == 1 else mb.mul(x=y, y=np.float32(alpha))
    if not node.has(2):
        return y
    c = node.inputs[2]
    return mb.add(x=y, y=c if beta == 1 else mb.mul(x=c, y=np.float32(beta)))


def _clip(node: Node) -> Any:
    low = float(node.constant(1)) if node.has(1) else node.attribute("min", None)
    high = float(node.constant(2)) if node.has(2) else node.attribute("max", None)
    x = node.inputs[0]
    x = x if low is None else mb.maximum(x=x, y=np.float32(low))
    return x if high is None else mb.minimum(x=x, y=np.float32(high))


def _reshape(node: Node) -> Any:
    """Reshape to constants. The batch is one here: a leading 0, or -1 that stands for it, is 1."""
    x, wanted = node.inputs[0], [int(v) for v in node.constant(1)]
    if node.attribute("allowzero", 0):
        raise node.refuse("allowzero")
    sizes = [int(x.shape[i]) if size == 0 else size for i, size in enumerate(wanted)]
    return mb.reshape(x=x, shape=sizes)


def _flatten(node: Node) -> Any:
    x, axis = node.inputs[0], int(node.attribute("axis", 1))
    if axis != 1:
        raise node.refuse(f"axis {axis}")
    return mb.reshape(x=x, shape=[int(x.shape[0]), -1])


def _transpose(node: Node) -> Any:
    rank = node.inputs[0].rank
    return mb.transpose(x=node.inputs[0], perm=list(node.attribute("perm", range(rank - 1, -1, -1))))


def _concat(node: Node) -> Any:
    return mb.concat(values=list(node.inputs), axis=int(node.attribute("axis", 0)))


def _pad(node: Node) -> Any:
    if node.attribute("mode", "constant") != "constant" or node.has(3):
        raise node.refuse("only constant padding of all axes")
    pads = node.numbers(1, "pads") or []
    value = float(node.constant(2)) if node.has(2) else float(node.attribute("value", 0.0))
    rank = len(pads) // 2
    pairs = [p for i in range(rank) for p in (pads[i], pads[i + rank])]
    return mb.pad(x=node.inputs[0], pad=pairs, mode="constant", constant_val=np.float32(value))


def _squeeze(node: Node) -> Any:
    axes = node.numbers(1, "axes")
    if axes is None:
        raise node.refuse("axes must be given")
    return mb.squeeze(x=node.inputs[0], axes=axes)


def _unsqueeze(node: Node) -> Any:
    return mb.expand_dims(x=node.inputs[0], axes=node.numbers(1, "axes") or [])


def _identity(node: Node) -> Any:
    return node.inputs[0]


def _leaky(node: Node) -> Any:
    return mb.leaky_relu(x=node.inputs[0], alpha=np.float32(node.attribute("alpha", 0.01)))


def _hard_sigmoid(node: Node) -> Any:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return mb.sigmoid_hard(x=node.inputs[0], alpha=np.float32(alpha), beta=np.float32(beta))


def _softmax(node: Node) -> Any:
    return mb.softmax(x=node.inputs[0], axis=int(node.attribute("axis", -1)))


SUPPORTED: dict[str, Callable[[Node], Any]] = {
    "Abs": _unary(mb.abs),
    "Add": _binary(mb.add),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _binary(mb.real_div),
    "Dropout": _identity,
    "Erf": _unary(mb.erf),
    "Exp": _unary(mb.exp),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _identity,
    "LeakyRelu": _leaky,
    "MatMul": _binary(mb.matmul),
    "MaxPool": _pool,
    "Mul": _binary(mb.mul),
    "Neg": lambda node: mb.mul(x=node.inputs[0], y=np.float32(-1)),
    "Pad": _pad,
    "ReduceMax": _reduce(mb.reduce_max),
    "ReduceMean": _reduce(mb.reduce_mean),
    "ReduceSum": _reduce(mb.reduce_sum),
    # Not mb.inverse: its default epsilon changes the value.
    "Reciprocal": lambda node: mb.real_div(x=1.0, y=node.inputs[0]),
    "Relu": _unary(mb.relu),
    "Reshape": _reshape,
    "Sigmoid": _unary(mb.sigmoid),
    "Softmax": _softmax,
    "Sqrt": _unary(mb.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(mb.sub),
    "Tanh": _unary(mb.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""ONNX op type → its function: the documented op set of this lowering."""
