"""Small ONNX graphs for tests, weights from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


class GraphBuilder:
    """Appends nodes and weights; each call names its result."""

    def __init__(self, shape: Sequence[int], *, seed: int = 0, batch: int | str = "N") -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])
        self.batch = batch

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append one node."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def weight(self, *shape: int, scale: float = 0.3) -> str:
        """A float32 weight."""
        return self.constant((scale * self.random.standard_normal(shape)).astype(np.float32))

    def constant(self, array: Any) -> str:
        """Any constant, a numpy array or scalar."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def model(self, output: str, shape: Sequence[int], *, opset: int = 18) -> onnx.ModelProto:
        """The finished model with one output."""
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [self.batch, *shape])
        graph = helper.make_graph(self.nodes, "test", [self.input], [result], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def small_cnn(*, seed: int = 0, classes: int = 4) -> onnx.ModelProto:
    """Conv, BatchNorm, ReLU, depthwise Conv, residual Add, MaxPool, GAP, Gemm, Softmax on 3x8x8."""
    g = GraphBuilder((3, 8, 8), seed=seed)
    y = g.op("Conv", "x", g.weight(8, 3, 3, 3), g.weight(8), pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    ones = g.constant(np.ones(8, np.float32))
    y = g.op("BatchNormalization", y, ones, g.weight(8), g.weight(8), ones)
    y = a = g.op("Relu", y)
    y = g.op("Conv", y, g.weight(8, 1, 3, 3), pads=[1, 1, 1, 1], group=8)
    y = g.op("Add", y, a)
    y = g.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = g.op("GlobalAveragePool", y)
    y = g.op("Flatten", y)
    y = g.op("Gemm", y, g.weight(classes, 8, scale=1.0), g.weight(classes), transB=1)
    return g.model(g.op("Softmax", y, axis=-1), [classes])


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write `model`."""
    path.write_bytes(model.SerializeToString())
    return path
