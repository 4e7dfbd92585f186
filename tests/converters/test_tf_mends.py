"""What the TensorFlow exporter leaves undone is mended or refused by name."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgekit.errors import SourceError
from edgekit_converters.frontends.tf_mends import mend


def _model(op: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], name="layer/op")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_erfc_becomes_what_it_is_defined_as() -> None:
    model = _model("Erfc")
    mend(model, where="m")
    x = np.linspace(-2, 2, 5, dtype=np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    assert y == pytest.approx([math.erfc(float(v)) for v in x], abs=1e-6)


def test_an_op_outside_the_standard_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match=r"layer/op.*Frobnicate") as caught:
        mend(_model("Frobnicate"), where="m")
    assert caught.value.code == "unsupported_op"
