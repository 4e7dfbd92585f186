from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import SourceError
from edgekit_converters import frontends
from edgekit_converters.frontends import onnx_model
from edgekit_converters.source import recognise
from tests.converters.graphs import save, small_cnn


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file") as caught:
        recognise(tmp_path / "model.onnx")
    assert caught.value.where is not None
    assert caught.value.where.endswith("model.onnx")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.onnx", b"", "empty"),
        ("a.keras", b"not a keras file", "not a Keras file"),
        ("a.h5", b"\x00" * 64, "not a Keras file"),
        ("a.keras", b"PK\x03\x04 cut off", "damaged archive"),
        ("a.pkl", b"\x80\x04\x95", "--trust"),
        ("a.bin", b"\x80\x04\x95", "--trust"),
        ("a.joblib", b"\x78\x9c\x00", "--trust"),
        ("a.mlmodel", b"\x08\x01", "Core ML"),
        ("a.caffemodel", b"\x0a\x01", "needs its .prototxt"),
        ("a.pt", b"\x00\x01", "not a PyTorch file"),
        ("a.json", b"{}", "not an XGBoost model"),
        ("a.txt", b"hello", "not a LightGBM model"),
        ("a.py", b"import torch", "factory"),
        ("a.xyz", b"hello", "nothing that is known"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SourceError, match=said):
        recognise(path)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.tflite", b"\x1c\x00\x00\x00TFL3", "tflite"),
        ("a.bin", b"\x1c\x00\x00\x00TFL3", "tflite"),
        ("a.json", b'{"learner": {}}', "xgboost"),
        ("a.ubj", b"{L\x00\x00\x00\x07learner{", "xgboost"),
        ("model", b"tree\nversion=v4\n", "lightgbm"),
    ],
)
def test_a_file_is_what_its_first_bytes_say(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert recognise(path).kind == kind


def test_a_pickle_passes_only_with_trust(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04\x95")
    with pytest.raises(SourceError) as caught:
        recognise(path)
    assert (caught.value.code, caught.value.exit_code) == ("needs_trust", 2)
    assert recognise(path, trust=True).kind == "sklearn"


def test_a_pickled_pytorch_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", b"\x80\x02")
    with pytest.raises(SourceError, match=r"torch\.export"):
        recognise(path, trust=True)


def test_a_factory_is_named_with_a_colon_and_changes_with_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def make(): ...")
    first = recognise(tmp_path / "net.py:make")
    assert (first.kind, first.path) == ("torch", f"{(tmp_path / 'net.py').resolve()}:make")
    (tmp_path / "weights.bin").write_bytes(b"1")
    assert recognise(tmp_path / "net.py:make").digest != first.digest
    # One file may make several models: none may come out of the cache as another.
    assert recognise(tmp_path / "net.py:small").digest != recognise(tmp_path / "net.py:make").digest
    with pytest.raises(SourceError, match="no such file"):
        recognise(tmp_path / "other.py:make")
    with pytest.raises(SourceError, match="no name of a function"):
        recognise(tmp_path / "net.py:make()")


def test_a_caffe_model_is_both_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('name: "n" layer { name: "a" }')
    with pytest.raises(SourceError, match="caffemodel"):
        recognise(tmp_path / "net.prototxt")
    (tmp_path / "net.caffemodel").write_bytes(b"\x0a\x01n")
    first = recognise(tmp_path / "net.prototxt")
    assert first.kind == recognise(tmp_path / "net.caffemodel").kind == "caffe"
    (tmp_path / "net.caffemodel").write_bytes(b"\x0a\x01m")
    assert recognise(tmp_path / "net.prototxt").digest != first.digest


def test_a_folder_without_a_saved_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"saved_model\.pb"):
        recognise(tmp_path)


def test_a_zip_that_is_no_keras_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(SourceError, match="not a Keras model"):
        recognise(path)


def test_a_keras_archive_with_a_flipped_byte_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}" * 100)
        archive.writestr("model.weights.h5", "weights" * 100)
    data = bytearray(path.read_bytes())
    data[data.index(b"weightsweights") + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        recognise(path)


def test_the_digest_of_a_folder_depends_on_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "a").write_bytes(b"1")
    first = recognise(tmp_path)
    (tmp_path / "variables" / "a").rename(tmp_path / "variables" / "b")
    assert recognise(tmp_path).digest != first.digest
    assert first.kind == "savedmodel"


def test_a_truncated_onnx_file_is_refused(tmp_path: Path) -> None:
    data = small_cnn().SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in (1, len(data) // 2, len(data) - 3):
        path.write_bytes(data[:size])
        with pytest.raises(SourceError, match=r"not a valid ONNX model|empty"):
            onnx_model.load(path)


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    model = small_cnn()
    weight = model.graph.initializer[0]
    weight.raw_data = b"\x00\x00\xc0\x7f" + weight.raw_data[4:]
    with pytest.raises(SourceError, match="w0"):
        onnx_model.load(save(model, tmp_path / "nan.onnx"))


def test_a_cyclic_graph_is_refused(tmp_path: Path) -> None:
    model = small_cnn()
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    with pytest.raises(SourceError, match=r"cycle through \w+ \(computes"):
        onnx_model.load(save(model, tmp_path / "cycle.onnx"))


_MODEL = small_cnn().SerializeToString()


@given(place=st.integers(0, len(_MODEL) - 1), value=st.integers(0, 255))
def test_a_flipped_byte_never_crashes_the_loader(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    data = bytearray(_MODEL)
    data[place] = value
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    path.write_bytes(data)
    try:
        loaded = onnx_model.load(path)
    except SourceError:
        return
    assert loaded.signature.inputs


@given(data=st.binary(max_size=200))
def test_random_bytes_are_never_a_model(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(data)
    with pytest.raises(SourceError):
        onnx_model.load(path) if data else recognise(path)


def test_changed_external_weights_are_another_model(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [weights],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), path, save_as_external_data=True, location="m.bin", size_threshold=0)
    before = recognise(path)
    data = tmp_path / "m.bin"
    assert before.bytes == path.stat().st_size + data.stat().st_size
    data.write_bytes(data.read_bytes()[:-4] + np.float32(7).tobytes())
    assert recognise(path).digest != before.digest
    data.unlink()
    with pytest.raises(SourceError, match=r"m\.bin") as caught:
        onnx_model.load(path)
    assert caught.value.code == "missing_file"
    assert "m.bin" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("name", "data"), [("m.json", b'{"learner": {"x": 1}}'), ("m.txt", b"tree\nversion=v4\n")]
)
def test_a_damaged_file_of_trees_says_what_to_do(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        frontends.load(recognise(path))
    assert caught.value.where == str(path.resolve())
    assert "again" in str(caught.value.remedy)


def test_a_zip_whose_names_are_no_text_is_damaged(tmp_path: Path) -> None:
    """One flipped byte in a TorchScript file: Python's own reader raises what nobody expects."""
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/ä/data.pkl", b"x" * 50)
    data = path.read_bytes()
    path.write_bytes(data.replace("ä".encode(), b"\xff\xfe"))
    with pytest.raises(SourceError) as caught:
        recognise(path)
    assert caught.value.code == "corrupt_source"
