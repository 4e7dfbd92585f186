"""A real tritonserver answers as the source does; one that fails is contained and leaves no process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgekit_converters import frontends
from edgekit_converters.errors import ToolFailed
from edgekit_converters.npz import load_arrays
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.source import recognise
from edgekit_converters.targets.triton import TritonTarget
from edgekit_converters.targets.triton.served import TritonSession
from edgekit_converters.values import Built, Job
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import samples
from tests.converters.triton_jobs import built_in, job_from, job_of, require_triton

FRESH = samples(19, seed=7)
PRODUCTION = "model_repository/little_net"


@pytest.fixture
def python() -> Path:
    """The sidecar's interpreter; with CI=true it must be there."""
    return require_triton()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Job, Built, Path]:
    """A small model as a Triton variant: its job, what was built, and where."""
    return built_in(tmp_path)


def alone(job: Job, inputs: Mapping[str, Any], file: Path | None = None) -> dict[str, Any]:
    """What onnxruntime says in this process."""
    return OnnxSession(file or Path(job.hub)).run(inputs)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's servers put their files, and so the name by which they are known."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def left_behind(place: Path) -> list[str]:
    """Command lines of processes that name `place`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(place) in words and path.parent.name != str(os.getpid()):
            found.append(words)
    return found


# What is served


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_served_twin_answers_as_onnxruntime_does(
    made: tuple[Job, Built, Path], python: Path, protocol: str
) -> None:
    job, built, folder = made
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    session = TritonSession(folder, built, python, protocol=protocol)
    found = session.run(FRESH)
    for name, value in alone(job, FRESH).items():
        np.testing.assert_array_equal(found[name], value)
    assert session.ran == {"version": "2.51.0"}
    said = "twin: Python backend, onnxruntime 1.31.1 on the CPU; production configuration not served"
    assert session.backend == said
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_digits_are_served_as_they_are_computed(
    package: Path, digits: Path, python: Path, tmp_path: Path
) -> None:
    variants = package / "variants"
    data = {key: load_arrays(digits / "validation.npz")[key] for key in ("image",)}
    for precision in ("fp32", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        raw = variants / "x86-64-onnx-onnx-fp32" / "model.onnx"
        few = {"image": load_arrays(digits / "calibration.npz")["image"]}
        job = job_from(raw, folder, {"image": [-1, 8, 8, 1]}, precision, "", {}, few)
        built = TritonTarget().build(job, folder)
        file = folder / PRODUCTION / "1" / "model.onnx"
        found = TritonTarget().run(folder, built, data)
        assert found is not None
        for name, value in alone(job, data, file).items():
            np.testing.assert_array_equal(found[name], value)


def test_a_quantized_mlperf_tiny_model_is_served_as_it_is_computed(
    zoo: Path, python: Path, tmp_path: Path
) -> None:
    source = recognise(zoo / "image_classification" / "pretrainedResnet_quant.tflite")
    raw = tmp_path / "raw.onnx"
    frontends.load(source).export(raw)
    signature = frontends.load(source).signature
    (port,) = signature.inputs
    rows = np.random.default_rng(3).integers(-128, 128, (10, *port.shape[1:])).astype(port.dtype)
    job = job_from(raw, tmp_path, {port.name: list(port.shape)}, "fp32", "", {}, {port.name: rows})
    built = TritonTarget().build(job, tmp_path)
    found = TritonTarget().run(tmp_path, built, {port.name: rows})
    assert found is not None
    for name, value in alone(job, {port.name: rows}).items():
        np.testing.assert_array_equal(found[name], value)


def test_a_file_that_fixes_its_batch_is_served_one_by_one(python: Path, tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Reshape", "x", g.constant(np.array([1, 192], np.int64)))
        return g.op("Gemm", y, g.weight(192, 3), g.weight(3)), [3]

    job = job_of(tmp_path, build, batch=1)
    built = TritonTarget().build(job, tmp_path)
    written = (tmp_path / PRODUCTION / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in written
    assert "dims: [ 1, 3, 8, 8 ]" in written
    assert "dynamic_batching" not in written
    found = TritonTarget().run(tmp_path, built, FRESH)
    assert found is not None
    for name, value in alone(job, FRESH).items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)


def test_one_number_a_sample_goes_in_and_comes_out(python: Path, tmp_path: Path) -> None:
    gain, y = helper.make_tensor_value_info("gain", 1, ["N"]), helper.make_tensor_value_info("y", 1, ["N"])
    graph = helper.make_graph([helper.make_node("Exp", ["gain"], ["y"])], "g", [gain], [y])
    raw = tmp_path / "raw.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), raw)
    data = {"gain": np.linspace(-1, 1, 19, dtype=np.float32)}
    built = TritonTarget().build(job_from(raw, tmp_path, {"gain": [-1]}, "fp32", "", {}, data), tmp_path)
    found = TritonTarget().run(tmp_path, built, data)
    assert found is not None
    np.testing.assert_allclose(found["y"], np.exp(data["gain"]), rtol=1e-6)


def test_with_tensorrt_as_accelerator_the_twin_only_stands_in(python: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, precision="fp16", rules="triton-10.3", options={"accelerator": "tensorrt"})
    built = TritonTarget().build(job, tmp_path)
    session = TritonTarget().open(tmp_path, built, kernels="python-backend", threads=1)
    assert session is not None
    found = session.run(FRESH)
    assert session.ran == {"method": "emulated", "runtime": "triton", "version": "2.51.0"}
    assert session.backend.endswith(", TensorRT did not run")
    for name, value in alone(job, FRESH).items():
        np.testing.assert_allclose(found[name], value, atol=5e-3)


@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-5), ("int8", 0.05)])
def test_arm_nns_backend_gets_a_tflite_file_and_its_twin_runs_it(
    python: Path, tmp_path: Path, precision: str, close: float
) -> None:
    job = job_of(tmp_path, precision=precision, options={"backend": "armnn_tflite"})
    built = TritonTarget().build(job, tmp_path)
    written = (tmp_path / PRODUCTION / "config.pbtxt").read_text()
    assert 'backend: "armnn_tflite"' in written
    assert ("TYPE_INT8" in written) == (precision == "int8")
    assert not (tmp_path / ".armnn").exists()
    session = TritonTarget().open(tmp_path, built, kernels="python-backend", threads=1)
    assert session is not None
    found = session.run(FRESH)
    assert session.backend.endswith(", Arm NN did not run")
    assert session.ran["method"] == "emulated"
    for name, value in alone(job, FRESH).items():
        np.testing.assert_allclose(found[name], value, atol=close)


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise RuntimeError('no weights')", "no weights"),
        ("import os; os._exit(7)", "tritonserver"),
        ("import os, signal; os.kill(os.getppid(), signal.SIGSEGV)", "tritonserver ended"),
    ],
    ids=["a model that raises", "a backend that dies", "a server that dies"],
)
@pytest.mark.parametrize("when", ["initialize", "execute"])
def test_a_failing_server_is_contained_and_leaves_no_process(
    made: tuple[Job, Built, Path], python: Path, place: Path, fault: str, said: str, when: str
) -> None:
    _, built, folder = made
    spoil(folder, when, fault)
    with pytest.raises(ToolFailed) as caught:
        TritonSession(folder, built, python, seconds=20).run(FRESH)
    assert caught.value.code == "triton_failed"
    assert said in str(caught.value) or when == "execute"
    assert not re.search(r"\d\d:\d\d:\d\d\.\d", str(caught.value))  # else no two packages are the same
    assert_gone(place)


def test_a_request_that_the_server_refuses_is_told_with_its_reason(
    made: tuple[Job, Built, Path], python: Path, place: Path
) -> None:
    _, built, folder = made
    with pytest.raises(ToolFailed, match=r"sample 0: .*shape") as caught:
        TritonSession(folder, built, python).run({"x": FRESH["x"][:, :2]})
    assert caught.value.code == "triton_failed"
    assert_gone(place)


def test_a_server_that_hangs_is_ended_in_time(
    made: tuple[Job, Built, Path], python: Path, place: Path
) -> None:
    _, built, folder = made
    spoil(folder, "initialize", "import time; time.sleep(600)")
    begun = time.monotonic()
    with pytest.raises(ToolFailed, match="not ready in time"):
        TritonSession(folder, built, python, seconds=2).run(FRESH)
    assert time.monotonic() - begun < 15
    assert_gone(place)


def test_the_server_dies_with_the_process_that_asked_for_it(
    made: tuple[Job, Built, Path], python: Path, tmp_path: Path
) -> None:
    _, built, folder = made
    spoil(folder, "initialize", "import time; time.sleep(600)")
    program = tmp_path / "ask.py"
    program.write_text(
        "import sys, pathlib\n"
        "from edgekit_converters.npz import load_arrays\n"
        "from edgekit_converters.targets.triton import TritonTarget\n"
        "from edgekit_converters.values import Built\n"
        "import json\n"
        "built = Built.from_dict(json.loads(sys.argv[2]))\n"
        "TritonTarget().run(pathlib.Path(sys.argv[1]), built, load_arrays(pathlib.Path(sys.argv[3])))\n"
    )
    command = [
        sys.executable,
        str(program),
        str(folder),
        json.dumps(built.to_dict()),
        str(tmp_path / "samples.npz"),
    ]
    asking = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)})
    place = tmp_path / "edgekit-triton-"
    deadline = time.monotonic() + 30
    while not any("bin/tritonserver" in item for item in left_behind(place)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    assert_gone(place)


def spoil(folder: Path, when: str, fault: str) -> None:
    """Make the twin's model do `fault` first thing in `when`."""
    path = next((folder / "twin").glob("*/1/model.py"))
    takes = {"initialize": "args: Mapping[str, str]", "execute": "requests: Sequence[Any]"}[when]
    head = f"    def {when}(self, {takes})"
    written = path.read_text()
    assert head in written
    start = written.index(head)
    end = written.index('"""\n', written.index('"""', start) + 3) + 4
    path.write_text(f"{written[:end]}        {fault}\n{written[end:]}")


def assert_gone(place: Path) -> None:
    """Nothing of a server is left, after the moment the kernel takes."""
    deadline = time.monotonic() + 10
    while left := left_behind(place):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
