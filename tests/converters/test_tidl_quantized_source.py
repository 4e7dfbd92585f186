"""A source with steps of its own is taken back to floats, and gets the SoC's steps instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.package import Tensor
from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.quantize.graphs import clone
from edgekit_converters.quantize.qdq import quantize
from edgekit_converters.quantize.ranges import Ranges
from edgekit_converters.quantize.running import serialize
from edgekit_converters.targets.tidl import TidlTarget, unquantize
from edgekit_converters.targets.tidl.session import EMULATION
from tests.converters.graphs import small_cnn
from tests.converters.quant_models import known
from tests.converters.tidl_bundles import build, stored

X = Tensor(name="x", dtype="float32", shape=(-1, 3, 8, 8))
Y = Tensor(name="t9", dtype="float32", shape=(-1, 4))
STEP, ZERO = np.float32(0.05), np.int8(-3)


def rows(count: int, seed: int = 1) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def quantized() -> onnx.ModelProto:
    """The network in onnxruntime's int8: asymmetric, per channel."""
    model = clone(hub.canonical(small_cnn()).model)
    ranges = Ranges(known(model, rows(60)), "minmax")
    made: onnx.ModelProto = onnx.load_from_string(
        serialize(quantize(model, ranges, load_rules("onnx-1.31"), precision="int8"))
    )
    return made


def integer_ports(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with an int8 input and output."""
    names = ("port_scale", "port_zero")
    for name, value in zip(names, (STEP, ZERO), strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    for node in model.graph.node:
        node.input[:] = ["x_real" if name == "x" else name for name in node.input]
        node.output[:] = ["t9_real" if name == "t9" else name for name in node.output]
    first = onnx.helper.make_node("DequantizeLinear", ["x", *names], ["x_real"])
    last = onnx.helper.make_node("QuantizeLinear", ["t9_real", "out_scale", "out_zero"], ["t9"])
    for name, number in (("out_scale", np.float32(1 / 256)), ("out_zero", np.int8(-128))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(number), name))
    model.graph.node.insert(0, first)
    model.graph.node.append(last)
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.elem_type = onnx.TensorProto.INT8
    del model.graph.value_info[:]
    return model


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_the_float_form_is_within_the_sources_steps_and_has_no_pair_left() -> None:
    proto = quantized()
    model = ir.from_proto(proto)
    assert unquantize.to_floats(model)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in model.graph}
    fresh = rows(20, seed=3)
    expected = OnnxSession(proto.SerializeToString(), optimized=False).run(fresh)["t9"]
    found = OnnxSession(serialize(model)).run(fresh)["t9"]
    assert 0 < np.abs(expected - found).max() < unquantize.STEPS
    assert not unquantize.to_floats(model)


def test_a_pair_that_cut_off_what_is_negative_leaves_a_relu() -> None:
    def pair(zero: int) -> list[str]:
        conv = onnx.helper.make_node("Conv", ["x", "w"], ["c"])
        there = onnx.helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"])
        back = onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
        info = onnx.helper.make_tensor_value_info
        held = {"w": np.ones((1, 1, 1, 1), np.float32), "s": np.float32(0.1), "z": np.int8(zero)}
        graph = onnx.helper.make_graph(
            [conv, there, back],
            "pair",
            [info("x", onnx.TensorProto.FLOAT, [1, 1, 2, 2])],
            [info("y", onnx.TensorProto.FLOAT, [1, 1, 2, 2])],
            [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
        )
        model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]))
        unquantize.to_floats(model)
        return [node.op_type for node in model.graph if node.op_type != "Identity"]

    assert pair(-128) == ["Conv", "Relu"]
    assert pair(0) == ["Conv"]


@pytest.mark.parametrize("ports", ["float", "integer"])
def test_a_quantized_source_gets_the_socs_own_powers_of_two(ports: str, tmp_path: Path) -> None:
    proto, samples, x, y = quantized(), rows(40), X, Y
    if ports == "integer":
        proto = integer_ports(proto)
        samples = {"x": np.clip(np.rint(samples["x"] / STEP) + ZERO, -128, 127).astype(np.int8)}
        x = Tensor(name="x", dtype="int8", shape=X.shape)
        y = Tensor(name="t9", dtype="int8", shape=Y.shape)
    given = stored(proto, samples, (x,), (y,), tmp_path)
    built = build(given, "tda4vm", tmp_path / "bundle")
    assert "QuantizeLinear" not in kinds(tmp_path / "bundle/model/model.onnx")
    model = onnx.load(tmp_path / "bundle" / EMULATION)
    held = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all((np.frexp(held[node.input[1]])[0] == 0.5).all() for node in pairs)
    assert len(pairs) > 15
    codes = {item["reason_code"] for item in built.facts["arm"]}
    assert codes == ({"integer_port"} if ports == "integer" else set())
    assert built.facts["subgraphs"] == 1
    expected = OnnxSession(given.hub).run(samples)["t9"]
    found = TidlTarget().run(tmp_path / "bundle", built, samples)["t9"]
    assert found.dtype == expected.dtype
    share = (found.argmax(1) == expected.argmax(1)).mean()
    assert share > 0.9
