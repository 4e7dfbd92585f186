"""Keras' recurrent layers as one op each, whatever their direction and settings; and damaged files."""

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
import pathlib, sys, keras, numpy
layers = keras.layers
kinds = {
    "gru": layers.GRU(5),
    "old_gru_backwards": layers.GRU(5, reset_after=False, go_backwards=True, return_sequences=True),
    "both_ways": layers.Bidirectional(layers.GRU(4, return_sequences=True)),
    "simple": layers.SimpleRNN(4, use_bias=False),
    "lstm": layers.LSTM(4, return_sequences=True),
}
random = numpy.random.default_rng(0)
for name, layer in kinds.items():
    model = keras.Sequential([keras.Input((7, 3)), layer, layers.Dense(2)])
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape) * 0.5)
    model.save(pathlib.Path(sys.argv[1]) / f"{name}.keras")
    model.save(pathlib.Path(sys.argv[1]) / f"{name}.h5")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, in both formats."""
    found = tmp_path_factory.mktemp("keras")
    subprocess.run([sys.executable, "-c", _MAKE, found], check=True, capture_output=True)
    return found


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("gru.keras", "GRU"),
        ("old_gru_backwards.keras", "GRU"),
        ("both_ways.keras", "GRU"),
        ("simple.keras", "RNN"),
        ("lstm.keras", "LSTM"),
        ("gru.h5", "GRU"),
    ],
)
def test_a_recurrent_layer_is_one_op_and_no_loop(
    name: str, op: str, folder: Path, workers: Pool, tmp_path: Path
) -> None:
    source = asdict(recognise(folder / name))
    facts = workers.run("tensorflow", "describe", {"source": source})
    names = {item["name"]: item["name"] for item in (*facts["inputs"], *facts["outputs"])}
    rows = np.random.default_rng(1).random((5, 7, 3), np.float32)
    save_arrays(tmp_path / "rows.npz", {facts["inputs"][0]["name"]: rows})
    data = {"data": str(tmp_path / "rows.npz"), "out": str(tmp_path / "out.npz")}
    workers.run("tensorflow", "reference", {"source": source, "names": names, **data})
    workers.run("tensorflow", "export", {"source": source, "out": str(tmp_path / "m.onnx")})
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert op in kinds
    assert not kinds & {"Loop", "Scan", "If"}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: rows})
    (expected,) = load_arrays(tmp_path / "out.npz").values()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_truncated_hdf5_file_is_refused_with_its_name(
    share: float, folder: Path, workers: Pool, tmp_path: Path
) -> None:
    path = tmp_path / "cut.h5"
    data = (folder / "gru.h5").read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError) as caught:
        workers.run("tensorflow", "describe", {"source": asdict(recognise(path))})
    assert str(caught.value.where) == str(path.resolve())
