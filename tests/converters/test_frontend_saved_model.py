"""TensorFlow 1's SavedModels: a graph whose variables live in a session."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgekit.errors import SourceError
from edgekit_converters.engine.pool import Pool
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.source import recognise
from tests.conftest import require_package

require_package("tensorflow", "tf")
pytestmark = pytest.mark.slow

_MAKE = """
import sys, tensorflow as tf
v1 = tf.compat.v1
with tf.Graph().as_default(), v1.Session() as session:
    x = v1.placeholder(tf.float32, [None, 4], "x")
    bias = v1.placeholder(tf.float32, [None, 3], "bias")
    weight = v1.get_variable("weight", [4, 3], use_resource=False)
    y = tf.nn.softmax(tf.matmul(x, weight) + bias)
    session.run(v1.global_variables_initializer())
    total = tf.reduce_sum(y * [[1.0, 2.0, 3.0]], 1, keepdims=True)
    v1.saved_model.simple_save(session, sys.argv[1], {"x": x, "bias": bias}, {"y": y, "total": total})
"""


@pytest.fixture(scope="module")
def session_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel as TensorFlow 1 wrote them."""
    folder = tmp_path_factory.mktemp("v1") / "model"
    subprocess.run([sys.executable, "-c", _MAKE, folder], check=True, capture_output=True)
    return folder


def test_a_session_graph_becomes_onnx_and_computes_the_same(
    session_model: Path, workers: Pool, tmp_path: Path
) -> None:
    source = asdict(recognise(session_model))
    facts = workers.run("tensorflow", "describe", {"source": source})
    assert [item["name"] for item in facts["inputs"]] == ["bias", "x"]
    assert [item["name"] for item in facts["outputs"]] == ["total", "y"]
    random = np.random.default_rng(0)
    rows = {name: random.random((70, size), np.float32) for name, size in (("bias", 3), ("x", 4))}
    save_arrays(tmp_path / "rows.npz", rows)
    names = {name: name for name in ("bias", "x", "total", "y")}
    data = {"data": str(tmp_path / "rows.npz"), "out": str(tmp_path / "out.npz")}
    workers.run("tensorflow", "reference", {"source": source, "names": names, **data})
    expected = load_arrays(tmp_path / "out.npz")
    workers.run("tensorflow", "export", {"source": source, "out": str(tmp_path / "m.onnx")})
    model = onnx.load(tmp_path / "m.onnx")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = dict(zip([item.name for item in model.graph.input], rows.values(), strict=True))
    for name, found in zip(("total", "y"), session.run(None, fed), strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6)


def test_a_saved_model_without_its_variables_is_refused_with_its_name(
    session_model: Path, workers: Pool, tmp_path: Path
) -> None:
    (tmp_path / "saved_model.pb").write_bytes((session_model / "saved_model.pb").read_bytes())
    with pytest.raises(SourceError) as caught:
        workers.run("tensorflow", "describe", {"source": asdict(recognise(tmp_path))})
    assert str(caught.value.where) == str(tmp_path.resolve())


@pytest.mark.parametrize("size", [0.3, 0.9])
def test_a_truncated_graph_is_refused_with_its_name(
    session_model: Path, workers: Pool, tmp_path: Path, size: float
) -> None:
    data = (session_model / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(data[: int(len(data) * size)])
    with pytest.raises(SourceError, match="cannot load"):
        workers.run("tensorflow", "describe", {"source": asdict(recognise(tmp_path))})
