"""What a rewriting of one ONNX-ML node gets: the node, a place for plain nodes, and refusals by name.

Specification: onnx/docs/Operators-ml.md; where it is silent, onnxruntime's kernels are what users see,
and the tests compare with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Array, Emitter


class MlNode:
    """One node of the domain ``ai.onnx.ml`` and what is known about the graph around it."""

    def __init__(
        self,
        node: onnx.NodeProto,
        e: Emitter,
        types: Mapping[str, onnx.TypeProto],
        constants: Mapping[str, onnx.TensorProto],
    ) -> None:
        self.node, self.e = node, e
        self.inputs = list(node.input)
        self._types, self._constants = types, constants
        self._attributes = {item.name: item for item in node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; tensors as arrays, bytes as text."""
        if name not in self._attributes:
            return default
        value = onnx.helper.get_attribute_value(self._attributes[name])
        if isinstance(value, onnx.TensorProto):
            return onnx.numpy_helper.to_array(value)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value

    def numbers(self, name: str) -> Array:
        """A list of floats or whole numbers, empty if not given."""
        value: Array = np.asarray(self.attribute(name, []))
        return value

    def dtype(self, name: str) -> np.dtype[Any]:
        """An input's element type; float32 where inference gives none."""
        kind = self._types[name].tensor_type.elem_type if name in self._types else 0
        if kind == onnx.TensorProto.STRING:
            raise self.refusal("takes strings", code="unsupported_type")
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind) if kind else np.float32)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """An input's sizes, -1 where free; None if not even the rank is known."""
        found = self._types.get(name)
        if found is None or not found.tensor_type.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in found.tensor_type.shape.dim)

    def floats(self, index: int = 0) -> str:
        """Input `index` as float32."""
        name = self.inputs[index]
        return name if self.dtype(name) == np.float32 else self.e.cast(name, np.float32)

    def refusal(self, why: str, *, code: str = "unsupported_op", remedy: str | None = None) -> SourceError:
        """The error that names this node."""
        called = self.node.name or self.node.output[0]
        return SourceError(f"node {called!r} ({self.node.op_type}) {why}", remedy=remedy, code=code)


def transformed(n: MlNode, scores: str) -> str:
    """`scores` (N, k) after the node's post_transform."""
    return transform(n, scores, n.attribute("post_transform", "NONE"))


def transform(n: MlNode, scores: str, kind: str) -> str:
    """`scores` (N, k) after `kind`."""
    e = n.e
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return e.op("Sigmoid", scores)
    if kind == "SOFTMAX":
        return e.op("Softmax", scores, axis=1)
    if kind == "SOFTMAX_ZERO":
        # Entries within 1e-7 of zero take no part and stay zero.
        near = e.compare("LessOrEqual", e.op("Abs", scores), e.constant(1e-7, np.float32))
        top = e.reduce("ReduceMax", scores, [1])
        weight = e.op("Where", near, e.constant(0, np.float32), e.op("Exp", e.op("Sub", scores, top)))
        return e.op("Div", weight, e.reduce("ReduceSum", weight, [1]))
    raise n.refusal(f"has post_transform {kind}", code="unsupported_attribute")


def labels(n: MlNode, index: str) -> str:
    """Class numbers (N,) int64 for the places `index` (N,); strings become their places."""
    for name in ("classlabels_ints", "classlabels_int64s"):
        given = n.attribute(name)
        if given:
            return n.e.op("Gather", n.e.constant(given, np.int64), index, axis=0)
    return index


def label_count(n: MlNode) -> int:
    """Number of classes, 0 if none are named."""
    for name in ("classlabels_ints", "classlabels_int64s", "classlabels_strings"):
        if n.attribute(name):
            return len(n.attribute(name))
    return 0


def arg_max(e: Emitter, scores: str) -> str:
    """The place of the largest of each row, (N,) int64; the first of equal ones."""
    return e.op("ArgMax", scores, axis=1, keepdims=0)
