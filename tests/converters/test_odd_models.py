"""Models nobody tuned for: inputs by key, recurrent layers, open axes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomllib

from edgekit_converters.quantize.calibration import calibrate
from edgekit_converters.quantize.statistics import load
from tests.conftest import require_package
from tests.converters.conftest import edgekit
from tests.converters.graphs import GraphBuilder, save

RANDOM = np.random.default_rng(3)


_BY_KEY = """
import keras, numpy, sys
left, right = (keras.Input((4,), name=name) for name in ("left", "right"))
answer = keras.layers.Dense(3, name="y")(keras.layers.Subtract()([left, right]))
model = keras.Model({"right": right, "left": left}, answer)
model.save(sys.argv[1])
numpy.savez(sys.argv[2], kernel=numpy.asarray(model.layers[-1].kernel))
"""


def test_a_model_that_takes_its_inputs_by_key_gets_each_where_it_belongs(cache: Path, tmp_path: Path) -> None:
    require_package("tensorflow", "tf")
    source, weights = tmp_path / "m.keras", tmp_path / "weights.npz"
    subprocess.run([sys.executable, "-c", _BY_KEY, source, weights], check=True, capture_output=True)
    samples: dict[str, Any] = {name: RANDOM.random((40, 4), np.float32) for name in ("left", "right")}
    np.savez(tmp_path / "val.npz", **samples)
    options = ("--profile", "x86-64-litert", "--precision", "fp32", "--validation", tmp_path / "val.npz")
    done = edgekit("convert", source, *options, "--out", tmp_path / "out", "--json", cache=cache)
    (variant,) = json.loads(done.out)["variants"]
    assert variant["verification"]["verdict"] == "pass"
    with np.load(tmp_path / "out" / "probes" / f"{variant['id']}.npz") as probes, np.load(weights) as given:
        expected = (probes["in:left"] - probes["in:right"]) @ given["kernel"]
        np.testing.assert_allclose(probes["out:y"], expected, atol=1e-5)


def test_a_tensor_without_channels_does_not_stop_the_calibration(tmp_path: Path) -> None:
    """Recurrent layers put the batch on axis 1, and the last step of the data is shorter."""
    graph = GraphBuilder((5, 2))
    turned = graph.op("Transpose", "x", perm=[1, 0, 2])
    made = onnx.shape_inference.infer_shapes(
        graph.model(graph.op("Transpose", turned, perm=[1, 0, 2]), [5, 2])
    )
    model = save(made, tmp_path / "m.onnx")
    np.savez(tmp_path / "cal.npz", x=RANDOM.random((40, 5, 2), np.float32))
    calibrate(model, tmp_path / "cal.npz", tmp_path / "ranges.npz")
    assert turned in load(tmp_path / "ranges.npz").tensors


def test_init_leaves_open_axes_open_and_convert_asks_for_them(cache: Path, tmp_path: Path) -> None:
    graph = GraphBuilder((2, 2))
    made = graph.model(graph.op("Relu", "x"), [2, 2])
    for port in (made.graph.input[0], made.graph.output[0]):
        port.type.tensor_type.shape.dim[1].dim_param = "length"
    model = save(made, tmp_path / "m.onnx")
    edgekit("init", model, cache=cache)
    assert tomllib.loads((tmp_path / "model.toml").read_text())["inputs"][0]["shape"] == [-1, -1, 2]
    options = ("--profile", "x86-64-onnx", "--precision", "fp32", "--out", tmp_path / "out")
    assert "axis free" in edgekit("convert", model, *options, cache=cache, check=(2,)).err
