"""What we lower loads in tflite-runtime 2.14, the newest on old images, in an environment of its own."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.engine.pool import Limits, Pool
from edgekit_converters.quantize import calibration
from edgekit_converters.quantize.pipeline import for_target
from edgekit_converters.quantize.statistics import save as save_statistics
from edgekit_converters.source import recognise
from edgekit_converters.targets.tflite.lower import SUPPORTED, Lowered, Options, build
from tests.conftest import require_package
from tests.converters.graphs import small_cnn
from tests.converters.tflite_files import answers, to_integers, to_reals
from tests.house.environments import fresh_environment, pip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_RUN = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
for folder in sys.argv[1:]:
    machine = Interpreter(folder + "/model.tflite")
    machine.allocate_tensors()
    machine.set_tensor(machine.get_input_details()[0]["index"], np.load(folder + "/in.npy"))
    machine.invoke()
    np.save(folder + "/out.npy", machine.get_tensor(machine.get_output_details()[0]["index"]))
"""
_ZOO = {
    "image_classification/pretrainedResnet.h5": 255.0,
    "visual_wake_words/vww_96.h5": 1.0,
    "anomaly_detection/ad01.h5": 1.0,
}


@pytest.fixture(scope="module")
def old_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with tflite-runtime 2.14, whose wheels end at Python 3.11 and at numpy 1."""
    python = fresh_environment(tmp_path_factory.mktemp("old") / "env", "3.11")
    pip(python, "tflite-runtime==2.14.0", "numpy<2")
    return python


def files(model: onnx.ModelProto, samples: Any, folder: Path) -> dict[str, Lowered]:
    """One file a precision."""
    found = hub.canonical(model).model
    name = str(found.graph.inputs[0].name)
    made = {w: build(found, options=Options(weights=w)) for w in ("float32", "float16", "int8")}
    save_statistics(folder / "statistics.npz", calibration.measure(found, {name: samples}))
    for precision in ("int8", "int16x8"):
        rules = load_rules("tflite-2.3")
        qdq, _ = for_target(found, folder / "statistics.npz", rules, precision, supported=SUPPORTED)
        made[f"static {precision}"] = build(qdq)
    return made


def check(python: Path, made: dict[str, Lowered], feed: Any, folder: Path) -> None:
    """Every file loads there and says nearly what today's LiteRT says."""
    for name, file in made.items():
        (folder / name).mkdir()
        file.write(folder / name / "model.tflite")
        np.save(folder / name / "in.npy", to_integers(feed, file.inputs[0]))
    command: list[str | Path] = [python, "-c", _RUN, *(folder / name for name in made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, file in made.items():
        old = to_reals(np.load(folder / name / "out.npy"), file.outputs[0])
        new = answers(file, feed)["xnnpack"]
        assert np.abs(old - new).max() <= 0.05 * max(np.ptp(new), 1e-6), name


def test_every_precision_of_a_small_network_loads_in_the_old_runtime(
    old_runtime: Path, tmp_path: Path
) -> None:
    samples = np.random.default_rng(1).random((32, 3, 8, 8), np.float32)
    made = files(small_cnn(), samples, tmp_path)
    check(old_runtime, made, samples[:1], tmp_path)
    claimed = {name: tuple(int(part) for part in file.min_runtime.split(".")) for name, file in made.items()}
    assert all(least < (2, 15) for least in claimed.values()), claimed


def test_the_benchmark_networks_load_in_the_old_runtime(old_runtime: Path, zoo: Path, tmp_path: Path) -> None:
    require_package("tensorflow", "tf")
    with Pool(Limits()) as pool:
        for path, scale in _ZOO.items():
            folder = tmp_path / Path(path).stem
            folder.mkdir()
            source = asdict(recognise(zoo / path))
            pool.run("tensorflow", "export", {"source": source, "out": str(folder / "raw.onnx")})
            model = onnx.load(folder / "raw.onnx")
            sizes = [item.dim_value for item in model.graph.input[0].type.tensor_type.shape.dim][1:]
            samples = (np.random.default_rng(1).random((24, *sizes)) * scale).astype(np.float32)
            check(old_runtime, files(model, samples, folder), samples[:1], folder)
