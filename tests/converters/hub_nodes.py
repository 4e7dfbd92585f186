"""The node tests of the `onnx` wheel, and running both forms of a graph in onnxruntime."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from edgekit_converters import hub
from edgekit_converters.onnx_session import REFUSALS

ROOT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"
Arrays = dict[str, Any]


@dataclass(frozen=True)
class NodeTest:
    """One folder of the suite."""

    name: str
    ops: tuple[str, ...]

    def model(self) -> onnx.ModelProto:
        """The model as it lies on the disk."""
        return onnx.load(ROOT / self.name / "model.onnx")

    def data(self) -> tuple[Arrays, Arrays] | None:
        """What the first data set feeds and expects; None when it is not tensors of numbers."""
        graph = self.model().graph
        try:
            inputs = {v.name: self._tensor(f"input_{i}") for i, v in enumerate(graph.input)}
            outputs = {v.name: self._tensor(f"output_{i}") for i, v in enumerate(graph.output)}
        except (OSError, TypeError, ValueError, KeyError, RuntimeError):
            return None
        return inputs, outputs

    def _tensor(self, name: str) -> Any:
        proto = onnx.TensorProto.FromString(
            (ROOT / self.name / "test_data_set_0" / f"{name}.pb").read_bytes()
        )
        if proto.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
            raise ValueError(name)
        return numpy_helper.to_array(proto)


@functools.cache
def suite() -> tuple[NodeTest, ...]:
    """All tests, by name."""
    found = []
    for folder in sorted(ROOT.iterdir()):
        graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
        found.append(NodeTest(folder.name, tuple(sorted({node.op_type for node in graph.node}))))
    return tuple(found)


def of_op(op: str) -> Iterator[NodeTest]:
    """The tests that consist of this operator alone."""
    return (test for test in suite() if test.ops == (op,))


def run(model: onnx.ModelProto, inputs: Mapping[str, Any]) -> Arrays:
    """Node by node in onnxruntime."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def runs_right(test: NodeTest) -> bool:
    """Whether onnxruntime computes the stored outputs from the raw model."""
    data = test.data()
    if data is None:
        return False
    try:
        got = run(test.model(), data[0])
    except REFUSALS:
        return False
    return all(same(value, got[name]) for name, value in data[1].items())


def same(expected: Any, got: Any) -> bool:
    """The tolerances of the suite; NaN equals NaN."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    if expected.dtype.kind == "c":
        return bool(np.allclose(got, expected, rtol=1e-3, atol=1e-5))
    wide = np.asarray(got).astype(np.float64), np.asarray(expected).astype(np.float64)
    return bool(np.allclose(*wide, rtol=1e-3, atol=1e-5, equal_nan=True))


def proto(model: ir.Model) -> onnx.ModelProto:
    """A canonical graph as onnxruntime takes it."""
    return hub.to_proto(model)
