"""The hub on disk: the contract's names, the free batch, one sample, and a model that mixes its batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.errors import SourceError
from edgekit_converters import hub
from edgekit_converters.frontends import onnx_model
from edgekit_converters.hub import files
from tests.converters.conftest import edgekit
from tests.converters.graphs import GraphBuilder, save, small_cnn
from tests.converters.hub_nodes import run


def test_names_and_sizes_are_the_contracts_and_the_batch_stays_free(tmp_path: Path) -> None:
    model = small_cnn()
    # The contract's name for the output is taken inside the graph.
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "scores"
    output = model.graph.output[0].name
    raw, out = save(model, tmp_path / "raw.onnx"), tmp_path / "hub.onnx"
    facts = hub.canonicalise(raw, out, {"x": "image", output: "scores"}, {"image": [-1, 3, 8, 8]})
    made = onnx.load(out)
    onnx.checker.check_model(made, full_check=True)
    assert [item.name for item in (*made.graph.input, *made.graph.output)] == ["image", "scores"]
    assert facts["free_batch"] is True
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert "BatchNormalization" in facts["rewritten"]
    json.dumps(facts)
    image = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    (expected,), (got,) = run(model, {"x": image}).values(), run(made, {"image": image}).values()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def _with_batch(model: onnx.ModelProto, *sizes: int) -> onnx.ModelProto:
    for item, size in zip((*model.graph.input, *model.graph.output), sizes, strict=True):
        item.type.tensor_type.shape.dim[0].dim_value = size
    return model


def test_a_batch_fixed_at_many_is_freed(tmp_path: Path) -> None:
    model = _with_batch(small_cnn(), 4, 4)
    output = model.graph.output[0].name
    raw, out = save(model, tmp_path / "raw.onnx"), tmp_path / "hub.onnx"
    facts = hub.canonicalise(raw, out, {"x": "x", output: "y"}, {"x": [-1, 3, 8, 8]})
    made = onnx.load(out)
    ports = (*made.graph.input, *made.graph.output)
    assert facts["free_batch"] is True
    assert [item.type.tensor_type.shape.dim[0].dim_param for item in ports] == ["N", "N"]
    image = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    (expected,), (got,) = run(model, {"x": image}).values(), run(made, {"x": image[:1]}).values()
    np.testing.assert_allclose(got, expected[:1], rtol=1e-4, atol=1e-6)


def test_a_graph_that_needs_its_fixed_batch_is_refused_with_what_to_do(cache: Path, tmp_path: Path) -> None:
    g = GraphBuilder((6,))
    folded = g.op("Reshape", "x", g.constant(np.array([4, -1, 3], np.int64)))
    model = save(_with_batch(g.model(g.op("Flatten", folded), [6]), 4, 4), tmp_path / "four.onnx")
    options = ("--profile", "x86-64-onnx", "--precision", "fp32", "--out", tmp_path / "out", "--json")
    done = edgekit("convert", model, *options, cache=cache, check=(3,))
    (refused,) = json.loads(done.out)["refused"]
    assert refused["reason_code"] == "hub_differs"
    assert "free batch" in refused["remedy"]


def test_an_output_without_a_row_for_each_sample_is_refused_by_name(cache: Path, tmp_path: Path) -> None:
    g = GraphBuilder((6,))
    places = g.op("Transpose", g.op("NonZero", "x"), perm=[1, 0])
    model = g.model(places, [2])
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    options = ("--profile", "x86-64-onnx", "--precision", "fp32", "--out", tmp_path / "out", "--json")
    done = edgekit("convert", save(model, tmp_path / "places.onnx"), *options, cache=cache, check=(2,))
    assert repr(places) in done.err
    assert "one for each" in done.err


def test_a_source_that_gives_no_numbers_is_named_before_anything_is_built(
    cache: Path, tmp_path: Path
) -> None:
    g = GraphBuilder((4,))
    model = save(g.model(g.op("Log", "x"), [4]), tmp_path / "log.onnx")
    np.savez(tmp_path / "val.npz", x=np.array([[1, 2, 3, 4], [1, -1, 1, 1], [0, 1, 1, 1]], np.float32))
    options = ("--profile", "x86-64-onnx", "--precision", "fp32", "--out", tmp_path / "out")
    done = edgekit("convert", model, *options, "--validation", tmp_path / "val.npz", cache=cache, check=(2,))
    assert "NaN or infinity" in done.err
    assert "2 of 3 samples" in done.err


@pytest.mark.parametrize("sizes", [(4, 1), (4, 0)], ids=["one", "any"])
def test_inputs_that_count_their_samples_differently_are_refused(
    sizes: tuple[int, int], tmp_path: Path
) -> None:
    g = GraphBuilder((6,))
    model = g.model(g.op("Add", "x", "other"), [6])
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", 1, ["N", 6]))
    for item, size in zip(model.graph.input, sizes, strict=True):
        dim = item.type.tensor_type.shape.dim[0]
        dim.Clear()
        if size:
            dim.dim_value = size
    with pytest.raises(SourceError, match=r"'x' has 4, 'other' has (1|any)") as caught:
        onnx_model.load(save(model, tmp_path / "two.onnx"))
    assert caught.value.code == "fixed_batch"


def test_with_one_sample_computed_shapes_are_constants(tmp_path: Path) -> None:
    g = GraphBuilder((4, 6))
    first = g.op("Gather", g.op("Shape", "x"), g.constant(np.array([0], np.int64)))
    shape = g.op("Concat", first, g.constant(np.array([24], np.int64)), axis=0)
    zeros = g.op("ConstantOfShape", shape)
    model = g.model(g.op("Add", g.op("Flatten", "x"), zeros), [24])
    raw, out = save(model, tmp_path / "raw.onnx"), tmp_path / "hub.onnx"
    names = {"x": "x", model.graph.output[0].name: "y"}
    assert "Shape" in hub.canonicalise(raw, out, names, {"x": [-1, 4, 6]})["ops"]
    one = hub.with_batch_one(out)
    assert [node.op_type for node in one.graph.node] == ["Flatten", "Add"]
    assert [dim.dim_value for dim in one.graph.output[0].type.tensor_type.shape.dim] == [1, 24]


def test_a_shape_computed_for_the_batch_alone_is_written_down(tmp_path: Path) -> None:
    g = GraphBuilder((4, 6))
    first = g.op("Gather", g.op("Shape", "x"), g.constant(np.array([0], np.int64)))
    shape = g.op("Concat", first, g.constant(np.array([24], np.int64)), axis=0)
    found = hub.canonical(g.model(g.op("Reshape", "x", shape), [24]))
    assert found.facts["ops"] == ["Reshape"]
    x = np.random.default_rng(0).random((3, 4, 6), np.float32)
    (got,) = run(hub.to_proto(found.model), {"x": x}).values()
    np.testing.assert_array_equal(got, x.reshape(3, 24))


def test_weights_beyond_what_a_file_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST", 1000)
    model = small_cnn()
    names = {"x": "x", model.graph.output[0].name: "y"}
    with pytest.raises(SourceError, match="GiB") as caught:
        hub.canonicalise(
            save(model, tmp_path / "raw.onnx"), tmp_path / "hub.onnx", names, {"x": [-1, 3, 8, 8]}
        )
    assert caught.value.code == "too_large"
    assert not (tmp_path / "hub.onnx").exists()


def test_a_model_that_mixes_its_batch_is_refused_with_what_to_do(cache: Path, tmp_path: Path) -> None:
    g = GraphBuilder((4,))
    mean = g.op("ReduceMean", "x", g.constant(np.array([0], np.int64)), keepdims=1)
    model = save(g.model(g.op("Sub", "x", mean), [4]), tmp_path / "centred.onnx")
    options = ("--profile", "x86-64-onnx", "--precision", "fp32", "--out", tmp_path / "out", "--json")
    done = edgekit("convert", model, *options, cache=cache, check=(2,))
    assert "depends on the other samples" in done.err
    assert "inference" in done.err
    assert not (tmp_path / "out").exists()


# In a process of its own: the scikit-learn frontend teaches skl2onnx other trees, for the whole process.
_FOREST = """
import sys
import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

labels = np.array(["a", "b", "c"]) if sys.argv[2] == "text" else np.arange(3)
x = np.random.default_rng(0).random((60, 4)).astype(np.float32)
forest = RandomForestClassifier(5, max_depth=4, random_state=0).fit(x, labels[(3 * x[:, 0]).astype(int)])
model = to_onnx(forest, x[:1], target_opset={"": 17, "ai.onnx.ml": 3})
with open(sys.argv[1] + "/forest.onnx", "wb") as stream:
    stream.write(model.SerializeToString())
np.savez(sys.argv[1] + "/data.npz", x=x, scores=forest.predict_proba(x))
"""


@pytest.mark.parametrize("labels", ["numbers", "text"])
def test_an_onnx_file_of_trees_with_its_map_becomes_plain_tensors(labels: str, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="the model is made with the extra [ml]")
    subprocess.run([sys.executable, "-W", "ignore", "-c", _FOREST, tmp_path, labels], check=True)
    with np.load(tmp_path / "data.npz") as data:
        x, wanted = data["x"], data["scores"]
    source = onnx_model.load(tmp_path / "forest.onnx")
    scores = source.run({"X": x})["output_probability"]
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    source.export(tmp_path / "raw.onnx")
    found = hub.canonical(onnx.load(tmp_path / "raw.onnx"))
    assert {node.domain for node in found.model.graph} == {""}
    got = run(hub.to_proto(found.model), {"X": x})
    np.testing.assert_allclose(got["output_probability"], scores, atol=1e-6)
    assert {item.name for item in source.signature.outputs} == set(got)
