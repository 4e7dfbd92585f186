"""Other models in TIDL bundles: cut in the middle, attention, Caffe, nothing for the accelerator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.package import Tensor
from edgekit_converters import frontends
from edgekit_converters.errors import Refusal
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.quantize.analysis import snr
from edgekit_converters.source import recognise
from edgekit_converters.targets.tidl import TidlTarget
from tests.converters.caffe_files import NetWriter
from tests.converters.graphs import GraphBuilder
from tests.converters.test_tidl_bundle import X, images, weights
from tests.converters.tidl_bundles import build, stored


def test_a_model_cut_in_the_middle_is_quantized_on_both_sides_of_the_cut(tmp_path: Path) -> None:
    def graph() -> onnx.ModelProto:
        g = GraphBuilder((3, 8, 8), seed=7)
        y = g.op("Conv", "x", g.weight(6, 3, 3, 3), g.weight(6))
        y = g.op("Erf", g.op("Relu", y))
        return g.model(g.op("Conv", y, g.weight(4, 6, 3, 3), g.weight(4)), [4, 4, 4])

    out = Tensor(name="t3", dtype="float32", shape=(-1, 4, 4, 4))
    given = stored(graph(), images(30), (X,), (out,), tmp_path)
    built = build(given, "am68a", tmp_path / "bundle")
    report = json.loads((tmp_path / "bundle/report/partition.json").read_text())
    assert [[node["op"] for node in item["nodes"]] for item in report["subgraphs"]] == [
        ["Conv", "Relu"],
        ["Conv"],
    ]
    assert [(item["op"], item["reason_code"]) for item in report["arm"]] == [("Erf", "lone_erf")]
    assert "lone_erf" in (tmp_path / "bundle/report/partition.md").read_text()
    assert built.facts["subgraphs"] == 2
    options = json.loads((tmp_path / "bundle/compile/options.json").read_text())
    assert options["deny_list:layer_name"] == "t2"
    assert len(weights(tmp_path / "bundle")) == 2


def block(g: GraphBuilder) -> str:
    """Attention with four heads over sixteen places, and a dense part with GELU."""
    shape = g.constant(np.array([-1, 16, 4, 8], np.int64))
    y = g.op("LayerNormalization", "x", g.weight(32), g.weight(32), axis=-1)
    parts = [g.op("Reshape", g.op("MatMul", y, g.weight(32, 32)), shape) for _ in range(3)]
    orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (g.op("Transpose", item, perm=order) for item, order in zip(parts, orders, strict=True))
    shares = g.op("Softmax", g.op("Mul", g.op("MatMul", q, k), g.constant(np.float32(0.35))), axis=-1)
    seen = g.op("Transpose", g.op("MatMul", shares, v), perm=[0, 2, 1, 3])
    y = g.op("Add", "x", g.op("Reshape", seen, g.constant(np.array([-1, 16, 32], np.int64))))
    z = g.op("Gelu", g.op("Add", g.op("MatMul", y, g.weight(32, 64)), g.weight(64)))
    return g.op("Add", y, g.op("MatMul", z, g.weight(64, 32)))


def test_a_transformer_block_is_cut_as_each_soc_needs_it_and_denied_by_the_files_own_names(
    tmp_path: Path,
) -> None:
    g = GraphBuilder((16, 32), seed=1)
    output = block(g)
    x = Tensor(name="x", dtype="float32", shape=(-1, 16, 32))
    rows = {"x": np.random.default_rng(0).standard_normal((24, 16, 32)).astype(np.float32)}
    given = stored(g.model(output, [16, 32], opset=21), rows, (x,), (replace(x, name=output),), tmp_path)
    codes = {}
    for soc in ("am62a", "am68a", "tda4vm"):
        folder = tmp_path / soc
        built = build(given, soc, folder)
        codes[soc] = {item["op"]: item["reason_code"] for item in built.facts["arm"]}
        expected = OnnxSession(given.hub).run(rows)[output]
        assert snr(expected, TidlTarget().run(folder, built, rows)[output]) > 20
        options = json.loads((folder / "compile/options.json").read_text())
        denied = options.get("deny_list:layer_name", "").split(", ")
        kinds = {node.name: node.op_type for node in onnx.load(folder / "model/model.onnx").graph.node}
        found = {kinds[name] for name in denied if name}
        if soc == "am62a":
            assert found == {"Softmax", "Div", "Erf", "Add", "Mul"}
    assert codes["am62a"] == {"Softmax": "no_lookup_activation", "Gelu": "no_lookup_activation"}
    assert codes["am68a"] == {}
    assert codes["tda4vm"]["MatMul"] == "mixed_sign_product"


def caffe_net(folder: Path) -> Path:
    net = NetWriter(1, 3, 8, 8)
    y = net.layer(
        "Convolution", "data", None, "convolution_param { num_output: 6 kernel_size: 3 pad: 1 }",
        net.weight(6, 3, 3, 3), net.weight(6),
    )  # fmt: skip
    net.layer("ReLU", y, y)
    y = net.layer("Pooling", y, None, "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    y = net.layer(
        "InnerProduct", y, None, "inner_product_param { num_output: 5 }", net.weight(5, 96), net.weight(5)
    )
    net.layer("Softmax", y, "prob")
    return net.save(folder)


def test_a_caffe_net_goes_to_the_legacy_tool_as_it_came(tmp_path: Path) -> None:
    path = caffe_net(tmp_path)
    source = recognise(path)
    loaded = frontends.load(source)
    loaded.export(tmp_path / "raw.onnx")
    signature = loaded.signature
    samples = {signature.inputs[0].name: images(30)["x"]}
    given = stored(
        onnx.load(tmp_path / "raw.onnx"), samples, signature.inputs, signature.outputs, tmp_path, source
    )
    built = build(given, "am5729", tmp_path / "bundle")
    text = (tmp_path / "bundle/compile/import.txt").read_text()
    assert "modelType = 0\n" in text
    assert "inputNetFile = model/deploy.prototxt\ninputParamsFile = model/net.caffemodel\n" in text
    assert (tmp_path / "bundle/model/deploy.prototxt").read_bytes() == path.read_bytes()
    assert (tmp_path / "bundle/model/net.caffemodel").read_bytes() == path.with_suffix(
        ".caffemodel"
    ).read_bytes()
    assert not built.facts["arm"]
    assert "compile/import.txt" in built.facts["notes"][0]


def test_a_model_of_which_nothing_runs_on_the_accelerator_is_refused(tmp_path: Path) -> None:
    g = GraphBuilder((3, 8, 8))
    proto = g.model(g.op("Erf", "x"), [3, 8, 8])
    out = Tensor(name="t0", dtype="float32", shape=(-1, 3, 8, 8))
    given = stored(proto, images(20), (X,), (out,), tmp_path)
    with pytest.raises(Refusal, match="takes no node") as caught:
        build(given, "am68a", tmp_path / "bundle")
    assert caught.value.code == "nothing_accelerated"
