"""The canonical form computes what the source does, whatever operator and opset it is written in."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import EdgekitError
from edgekit_converters import hub
from edgekit_converters.hub.nodes import constant, static_shape
from tests.converters.graphs import Array, GraphBuilder, save, small_cnn
from tests.converters.hub_nodes import NodeTest, run, runs_right, same, suite

_REFUSED = {"control_flow", "unsupported_type"}
_LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SAMPLE = random.Random(20261121).sample([test for test in suite() if runs_right(test)], 60)


@pytest.mark.parametrize("test", SAMPLE, ids=lambda test: test.name)
def test_the_canonical_form_computes_what_the_source_does(test: NodeTest) -> None:
    data = test.data()
    assert data is not None
    inputs, expected = data
    try:
        found = hub.canonical(test.model())
    except EdgekitError as error:
        assert error.code in _REFUSED, error  # noqa: PT017  # the code is what is asserted
        return
    proto = hub.to_proto(found.model)
    assert [item.name for item in proto.graph.input] == list(inputs)
    got = run(proto, inputs)
    assert all(same(value, got[name]) for name, value in expected.items())


def _op(kind: str, opset: int, inputs: dict[str, Array], **attributes: Any) -> onnx.ModelProto:
    """A model of one node of an old opset."""
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    node = helper.make_node(kind, list(inputs), ["out"], **attributes)
    result = onnx.ValueInfoProto(name="out")
    graph = helper.make_graph([node], "old", ports, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


_X = np.random.default_rng(4).standard_normal((2, 3, 4, 5)).astype(np.float32)
OLD: dict[str, tuple[str, int, dict[str, Array], dict[str, Any]]] = {
    "softmax over several axes": ("Softmax", 9, {"x": _X}, {"axis": 1}),
    "softmax over the last axis": ("Softmax", 11, {"x": _X}, {"axis": 3}),
    "softmax of an image of one pixel": ("Softmax", 9, {"x": _X[:, :, :1, :1]}, {"axis": 1}),
    "log softmax over several axes": ("LogSoftmax", 7, {"x": _X}, {"axis": 2}),
    "hardmax over several axes": ("Hardmax", 7, {"x": _X}, {"axis": 2}),
    "pads as attributes": ("Pad", 9, {"x": _X}, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.5}),
    "bounds as attributes": ("Clip", 9, {"x": _X}, {"min": -0.5, "max": 0.25}),
    "one bound": ("Clip", 9, {"x": _X}, {"max": 0.25}),
    "starts as attributes": ("Slice", 9, {"x": _X}, {"starts": [1, -3], "ends": [3, 9], "axes": [1, -1]}),
    "axes of a mean": ("ReduceMean", 12, {"x": _X}, {"axes": [1, -1], "keepdims": 0}),
    "axes of a sum": ("ReduceSum", 12, {"x": _X}, {"axes": [2]}),
    "axes of a squeeze": ("Squeeze", 11, {"x": _X[:, :1]}, {"axes": [1]}),
    "axes of an unsqueeze": ("Unsqueeze", 11, {"x": _X}, {"axes": [0, -1]}),
    "dropout of opset 7": ("Dropout", 7, {"x": _X}, {"ratio": 0.7}),
    "upsample of opset 7": ("Upsample", 7, {"x": _X}, {"scales": [1.0, 1.0, 2.0, 3.0]}),
    "upsample, linear": ("Upsample", 7, {"x": _X}, {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"}),
    "top k as an attribute": ("TopK", 9, {"x": _X}, {"k": 2, "axis": 1}),
    "statistics": (
        "BatchNormalization",
        7,
        {"x": _X, **{name: np.array([0.5, 1, 2], np.float32) for name in ("s", "b", "m", "v")}},
        {"epsilon": 0.01},
    ),
    "regions": (
        "RoiAlign",
        10,
        {"x": _X, "r": np.array([[0, 0, 3, 3]], np.float32), "i": np.array([1], np.int64)},
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
    ),
    "grid modes": ("GridSample", 16, {"x": _X, "g": _X[:, :2, :, :2].copy()}, {"mode": "bilinear"}),
    "groups": (
        "GroupNormalization",
        18,
        {"x": _X[:, :2].copy(), "s": np.array([2], np.float32), "b": np.array([1], np.float32)},
        {"num_groups": 1},
    ),
}


@pytest.mark.parametrize("case", OLD, ids=list(OLD))
def test_an_old_form_means_in_the_hub_what_it_meant_then(case: str) -> None:
    kind, opset, inputs, attributes = OLD[case]
    model = _op(kind, opset, inputs, **attributes)
    if kind == "TopK":
        model.graph.node[0].output.append("places")
    expected = run(model, inputs)
    found = hub.canonical(model)
    assert found.facts["opset"] == 21
    assert found.facts["source_opset"] == opset
    got = run(hub.to_proto(found.model), inputs)
    np.testing.assert_allclose(got["out"], expected["out"], rtol=1e-5, atol=1e-6)


def test_one_sided_broadcasting_of_opset_1_is_placed_along_its_axis() -> None:
    """onnxruntime does not run it any more."""
    small = np.array([1, 2, 3], np.float32)
    model = _op("Add", 6, {"x": _X, "y": small}, broadcast=1, axis=1)
    got = run(hub.to_proto(hub.canonical(model).model), {"x": _X, "y": small})
    np.testing.assert_allclose(got["out"], _X + small[:, None, None])


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "bvlc_alexnet"])
def test_a_light_model_runs_raw_with_its_weights_as_constants(name: str) -> None:
    model = onnx.load(_LIGHT / f"light_{name}.onnx")
    found = hub.canonical(model)
    assert "ConstantOfShape" not in found.facts["ops"]
    assert "Dropout" not in found.facts["ops"]
    initial = {item.name for item in model.graph.initializer}
    port = next(item for item in model.graph.input if item.name not in initial)
    shape = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
    inputs = {port.name: np.random.default_rng(0).random(shape, np.float32)}
    expected, got = run(model, inputs), run(hub.to_proto(found.model), inputs)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-5, atol=1e-7)


def test_what_follows_a_convolution_channel_by_channel_goes_into_its_weights() -> None:
    g = GraphBuilder((3, 8, 8))
    y = g.op("Conv", "x", g.weight(4, 3, 3, 3))
    y = g.op("BatchNormalization", y, *(g.constant(np.array([1, 2, 0.5, 3], np.float32)) for _ in range(4)))
    y = g.op("Mul", y, g.weight(4, 1, 1))
    y = g.op("Sub", g.constant(np.array(2, np.float32)), y)
    y = g.op("ConvTranspose", y, g.weight(4, 2, 2, 2), g.weight(4), group=2, strides=[2, 2])
    y = g.op("Add", y, g.weight(1, 4, 1, 1))
    y = g.op("Flatten", y)
    y = g.op("Gemm", y, g.weight(576, 5), g.weight(5), beta=0.5)
    model = g.model(g.op("Div", y, g.constant(np.array([1, 2, 3, 4, 5], np.float32))), [5])
    found = hub.canonical(model)
    assert [node.op_type for node in found.model.graph] == ["Conv", "ConvTranspose", "Flatten", "Gemm"]
    inputs = {"x": np.random.default_rng(1).random((2, 3, 8, 8), np.float32)}
    (expected,), (got,) = run(model, inputs).values(), run(hub.to_proto(found.model), inputs).values()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_that_others_read_keeps_its_weights() -> None:
    g = GraphBuilder((3, 8, 8))
    y = g.op("Conv", "x", g.weight(4, 3, 1, 1))
    z = g.op("Mul", y, g.weight(4, 1, 1))
    found = hub.canonical(g.model(g.op("Add", y, z), [4, 8, 8]))
    assert found.facts["ops"] == ["Add", "Conv", "Mul"]


def test_windows_are_written_out_and_axes_count_from_the_front() -> None:
    g = GraphBuilder((3, 9, 9))
    y = g.op("Conv", "x", g.weight(4, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    y = g.op("ReduceMean", y, g.constant(np.array([-1, -2], np.int64)), keepdims=0)
    conv, mean = hub.canonical(g.model(g.op("Relu", y), [4])).model.graph[:2]
    assert conv.attributes["pads"].as_ints() == (1, 1, 1, 1)
    assert conv.attributes["kernel_shape"].as_ints() == (3, 3)
    assert "auto_pad" not in conv.attributes
    axes = constant(mean.inputs[1])
    assert axes is not None
    assert axes.tolist() == [3, 2]


def test_a_constant_condition_takes_its_branch() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[2] x) => (float[2] y) {
        c = Constant <value = bool {0}> ()
        y = If (c) <then_branch = a () => (float[2] p) { p = Neg (x) },
                    else_branch = b () => (float[2] q) { r = Exp (x) q = Abs (r) }>
    }"""
    model = onnx.parser.parse_model(text)
    found = hub.canonical(model)
    assert found.facts["ops"] == ["Abs", "Exp"]
    got = run(hub.to_proto(found.model), {"x": np.array([1, 2], np.float32)})
    np.testing.assert_allclose(got["y"], np.exp(np.array([1, 2], np.float32)), rtol=1e-6)


def test_local_functions_are_inlined() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "mine" : 1]>
    g (float[2] x) => (float[2] y) { y = mine.twice (x) }
    <domain: "mine", opset_import: ["" : 18]>
    twice (a) => (b) { b = Add (a, a) }"""
    found = hub.canonical(onnx.parser.parse_model(text))
    assert found.facts["ops"] == ["Add"]
    assert not found.model.functions


def test_outputs_that_are_inputs_or_constants_keep_their_names() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("a", "b", "c", "d")]
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(np.array([1, 2], np.float32))),
        helper.make_node("Abs", ["x"], ["c"]),
        helper.make_node("Identity", ["c"], ["d"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], outs), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    got = run(hub.to_proto(hub.canonical(model).model), {"x": np.array([-1, 3], np.float32)})
    assert {name: value.tolist() for name, value in got.items()} == {
        "a": [-1, 3],
        "b": [1, 2],
        "c": [1, 3],
        "d": [1, 3],
    }


def test_a_fed_shape_is_what_the_declared_output_says() -> None:
    shape = helper.make_tensor_value_info("s", TensorProto.INT64, [2])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "g", [x, shape], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = hub.canonical(model).model
    assert [item.name for item in found.graph.inputs] == ["x", "s"]
    target = constant(found.graph[0].inputs[1])
    assert target is not None
    assert target.tolist() == [2, 3]
    assert static_shape(found.graph.outputs[0]) == (2, 3)


_BYTES = """
import hashlib, sys, onnx
from edgekit_converters import hub
found = hub.to_proto(hub.canonical(onnx.load(sys.argv[1])).model)
print(hashlib.sha256(found.SerializeToString(deterministic=True)).hexdigest())
"""


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    path = save(small_cnn(), tmp_path / "m.onnx")
    digests = {
        subprocess.run(
            [sys.executable, "-c", _BYTES, path],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
