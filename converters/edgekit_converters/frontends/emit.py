"""Writing ONNX nodes: what the frontends and rewriting passes that make graphs themselves share.

Ops are written in the form of the model's own opset where that form changed (axes as attribute or
input, comparisons that came late), so that nodes can be put into an older model too. Specification:
onnx/docs/Changelog.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
OPSET = 18
_AXES_AS_INPUT = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}


class Emitter:
    """Collects nodes and weights; every new name starts with `prefix`, so that they do not clash."""

    def __init__(self, prefix: str = "", *, opset: int = OPSET) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.opset = opset
        self._prefix = prefix
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def fresh(self, hint: str) -> str:
        """A new name."""
        self._count += 1
        return f"{self._prefix}{hint}_{self._count}"

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Append a node with one output, called `out` if given; gives its name."""
        return self.ops(kind, *inputs, outputs=[out or self.fresh(kind)], **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: Sequence[str], **attributes: Any) -> list[str]:
        """Append a node with these outputs."""
        given = {key: value for key, value in attributes.items() if value is not None}
        name = self.fresh(f"{kind}_node")
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name=name, **given))
        return list(outputs)

    def constant(self, value: Any, dtype: Any = None, *, name: str | None = None) -> str:
        """A weight; equal ones are stored once (unless named)."""
        array = np.ascontiguousarray(np.asarray(value, dtype))
        array = array.reshape(np.shape(value))
        key = (str(array.dtype), array.shape, array.tobytes())
        if name is None and key in self._known:
            return self._known[key]
        found = name or self.fresh("c")
        self.weights.append(numpy_helper.from_array(array, found))
        self._known[key] = found
        return found

    def cast(self, x: str, dtype: Any) -> str:
        """`x` as another type."""
        return self.op("Cast", x, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """`x` with another shape; 0 keeps an axis, -1 is computed."""
        return self.op("Reshape", x, self.constant(list(shape), np.int64))

    def gather(self, x: str, indices: Any, axis: int) -> str:
        """Constant `indices` of `x` along `axis`."""
        return self.op("Gather", x, self.constant(indices, np.int64), axis=axis)

    def reduce(self, kind: str, x: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """``ReduceSum`` and its like over `axes`."""
        if self.opset >= _AXES_AS_INPUT.get(kind, 18):
            return self.op(kind, x, self.constant(list(axes), np.int64), keepdims=int(keep))
        return self.op(kind, x, axes=list(axes), keepdims=int(keep))

    def unsqueeze(self, x: str, axes: Sequence[int]) -> str:
        """`x` with new axes of size one."""
        if self.opset >= _AXES_AS_INPUT["Unsqueeze"]:
            return self.op("Unsqueeze", x, self.constant(list(axes), np.int64))
        return self.op("Unsqueeze", x, axes=list(axes))

    def compare(self, kind: str, a: str, b: str) -> str:
        """``Less``, ``LessOrEqual``, ``Greater``, ``GreaterOrEqual`` or ``Equal``; with NaN false."""
        if self.opset < 12 and kind.endswith("OrEqual"):
            return self.op("Or", self.op(kind.removesuffix("OrEqual"), a, b), self.op("Equal", a, b))
        return self.op(kind, a, b)

    def is_nan(self, x: str) -> str:
        """True where `x` is NaN, without an op that few runtimes have."""
        return self.op("Not", self.op("Equal", x, x))

    def model(
        self,
        inputs: Sequence[tuple[str, Any, Sequence[int | str]]],
        outputs: Sequence[tuple[str, Any, Sequence[int | str]]],
        *,
        producer: str = "edgekit",
    ) -> onnx.ModelProto:
        """The whole model; ports are (name, dtype, shape), a string in a shape is a free axis."""
        graph = helper.make_graph(self.nodes, "model", _ports(inputs), _ports(outputs), self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name=producer)


def _ports(items: Sequence[tuple[str, Any, Sequence[int | str]]]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
        for name, dtype, shape in items
    ]


def pruned(graph: onnx.GraphProto) -> None:
    """Take away nodes and weights that no output needs, in place."""
    needed = {port.name for port in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    weights = [item for item in graph.initializer if item.name in needed]
    nodes = list(reversed(kept))
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
