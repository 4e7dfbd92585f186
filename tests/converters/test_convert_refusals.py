"""Bad input and refusals through the command line: exit code, names, and that nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import UsageError
from edgekit.package import load_package
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.places import without_places
from edgekit_converters.engine.pool import Limits, Pool
from edgekit_converters.engine.request import Request, Result
from edgekit_converters.npz import load_arrays
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.report.doubts import warned
from tests.converters.conftest import edgekit
from tests.converters.graphs import GraphBuilder, save, small_cnn

ONNX_HOST = ("--profile", "x86-64-onnx")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(small_cnn(), tmp_path / "cnn.onnx")


def samples(path: Path, n: int = 64, scale: float = 1.0, **extra: Any) -> Path:
    np.savez(path, x=scale * np.random.default_rng(1).random((n, 3, 8, 8), np.float32), **extra)
    return path


def converted(model: Path, cache: Path, workers: Pool, **options: Any) -> Result:
    """The same in this process, with warm workers."""
    request = Request(
        source=model, profiles=("x86-64-onnx",), out=model.parent / "out", cache=cache, **options
    )
    return convert(request, pool=workers)


def test_without_data_float_ships_unverified_and_int8_is_refused(
    model: Path, cache: Path, tmp_path: Path
) -> None:
    done = edgekit("convert", model, *ONNX_HOST, "--out", tmp_path / "out", "--json", cache=cache, check=(3,))
    result = json.loads(done.out)
    (variant,) = result["variants"]
    assert variant["verification"]["verdict"] == "unverified"
    assert variant["verification"]["reasons"] == ["synthetic_inputs"]
    assert [(i["id"], i["reason_code"]) for i in result["refused"]] == [
        ("x86-64-onnx-onnx-int8", "needs_calibration")
    ]
    assert "--calibration" in result["refused"][0]["remedy"]
    assert not (tmp_path / "out" / "variants" / "x86-64-onnx-onnx-int8").exists()


def test_int8_named_without_calibration_is_a_usage_error(model: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = edgekit("convert", model, *ONNX_HOST, "--precision", "int8", "--out", out, cache=cache, check=(2,))
    assert "--calibration" in done.err
    assert not out.exists()


def test_with_calibration_and_labels_int8_is_proven(model: Path, cache: Path, tmp_path: Path) -> None:
    calibration = samples(tmp_path / "cal.npz", 128)
    validation = samples(tmp_path / "val.npz", 64)
    session = OnnxSession(model)
    labels = session.run(load_arrays(validation))[session.outputs[0]].argmax(1)
    options = ("--calibration", calibration, "--validation", samples(validation, 64, labels=labels))
    done = edgekit("convert", model, *ONNX_HOST, *options, "--out", tmp_path / "out", "--json", cache=cache)
    assert {i["verification"]["verdict"] for i in json.loads(done.out)["variants"]} == {"pass"}


def test_evaluation_data_outside_of_the_calibrated_range_are_a_warning(
    model: Path, cache: Path, workers: Pool, tmp_path: Path
) -> None:
    calibration = samples(tmp_path / "cal.npz", 64)
    for scale, said in ((1.0, []), (1.3, ["range_left"])):
        validation = samples(tmp_path / f"val-{scale}.npz", 64, scale)
        found = converted(
            model, cache, workers, precisions=("int8",), calibration=calibration, validation=validation
        )
        assert found.report["warnings"] == said
        assert all(warned(code) in found.report["notes"] for code in said)


@pytest.mark.parametrize(
    ("task", "labels", "said"),
    [
        ("detection", np.zeros((64, 2), np.int64), "labels (n, m, 5)"),
        ("segmentation", np.zeros((64, 2, 2), np.int64), "labels"),
        ("regression", np.zeros((64, 3), np.float32), "labels"),
        ("classification", np.zeros(64, np.float32), "astype('int64')"),
        ("classification", np.array(["cat"] * 64), "labels"),
    ],
)
def test_labels_of_another_task_are_a_usage_error_with_the_field(
    task: str, labels: Any, said: str, model: Path, cache: Path, workers: Pool, tmp_path: Path
) -> None:
    (tmp_path / "model.toml").write_text(f'[[outputs]]\nname = "y"\ntask = "{task}"\n')
    validation = samples(tmp_path / "val.npz", 64, labels=labels)
    with pytest.raises(UsageError) as caught:
        converted(model, cache, workers, precisions=("fp32",), validation=validation)
    assert caught.value.exit_code == 2
    assert str(caught.value.where).endswith("val.npz: labels")
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_that_nothing_takes_do_not_blame_the_calibration(
    cache: Path, workers: Pool, tmp_path: Path
) -> None:
    validation = samples(tmp_path / "val.npz", 64, labels=np.zeros((64, 5, 5), np.float32))
    g = GraphBuilder((3, 8, 8))
    model = save(g.model(g.op("Relu", "x"), [3, 8, 8]), tmp_path / "relu.onnx")
    notes = converted(model, cache, workers, precisions=("fp32",), validation=validation).report["notes"]
    assert not any("calibration data" in note for note in notes)
    assert any("labels are not used: no output has a task" in note for note in notes)


def test_a_model_too_small_for_four_bits_is_told_why(
    model: Path, cache: Path, workers: Pool, tmp_path: Path
) -> None:
    request = Request(
        source=model,
        profiles=("x86-64-litert",),
        precisions=("int4",),
        out=tmp_path / "out",
        cache=cache,
    )
    (refused,) = convert(request, pool=workers).manifest.refused
    assert "no weight became int4" in refused.detail
    assert "4096" in refused.detail


def _gigantic(g: GraphBuilder) -> Any:
    return g.model(g.op("Relu", "x"), [3, 200_000, 200_000])


def _without_elements(g: GraphBuilder) -> Any:
    return g.model(g.op("Relu", "x"), [0])


def _undeclared(g: GraphBuilder) -> Any:
    made = g.model(g.op("Relu", "x"), [3])
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    return made


def _dropping(g: GraphBuilder) -> Any:
    return g.model(g.op("Dropout", "x", "", g.constant(np.array(True))), [3])


@pytest.mark.parametrize(
    ("shape", "build", "code", "said"),
    [
        ((3, 200_000, 200_000), _gigantic, 2, "'x' of shape [-1, 3, 200000, 200000] is larger than 2 GiB"),
        ((0,), _without_elements, 2, "'x' of shape [-1, 0] has no elements"),
        ((3,), _undeclared, 2, "output 't0' is declared as [-1, 7] and computes [-1, 3]"),
        ((3,), _dropping, 3, "m.onnx: Dropout (computes 't0'): drops values at random"),
    ],
)
def test_sizes_and_nodes_that_cannot_be_are_named_with_the_file(
    shape: tuple[int, ...], build: Any, code: int, said: str, cache: Path, workers: Pool, tmp_path: Path
) -> None:
    model = save(build(GraphBuilder(shape)), tmp_path / "m.onnx")
    if code == 2:
        with pytest.raises(UsageError) as caught:
            converted(model, cache, workers, precisions=("fp32",))
        assert said in str(caught.value)
        assert str(caught.value.where).endswith("m.onnx")
    else:
        (refused,) = converted(model, cache, workers, precisions=("fp32",)).manifest.refused
        assert said in refused.detail
        assert "raw.onnx" not in refused.detail
    assert (tmp_path / "out").exists() == (code == 3)


def test_an_unknown_profile_names_the_nearest(model: Path, cache: Path, tmp_path: Path) -> None:
    done = edgekit("convert", model, "--profile", "rpi-4", "--out", tmp_path / "out", cache=cache, check=(2,))
    assert "rpi4" in done.err


def test_an_unknown_target_names_the_nearest(model: Path, cache: Path, tmp_path: Path) -> None:
    options = ("--target", "onnxx", "--out", tmp_path / "out")
    assert "onnx" in edgekit("convert", model, *ONNX_HOST, *options, cache=cache, check=(2,)).err


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((8, 3, 8, 8))}, "float64"),
        ({"x": np.zeros((8, 8, 8, 3), np.float32)}, "shape"),
        ({"x": np.full((8, 3, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"x": np.zeros((0, 3, 8, 8), np.float32)}, "no samples"),
        ({"x": np.zeros((8, 3, 8, 8), np.float32), "labels": np.zeros(7, int)}, "labels"),
    ],
)
def test_bad_calibration_data_are_named_and_nothing_is_written(
    model: Path, cache: Path, tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **arrays)
    out = tmp_path / "out"
    done = edgekit("convert", model, *ONNX_HOST, "--calibration", data, "--out", out, cache=cache, check=(2,))
    assert said in done.err
    assert "data.npz" in done.err
    assert not out.exists()


def test_a_corrupt_model_is_named_and_an_older_package_survives(
    model: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    edgekit("convert", model, *ONNX_HOST, "--precision", "fp32", "--out", out, cache=cache)
    before = (out / "package.json").read_bytes()
    model.write_bytes(model.read_bytes()[:500])
    done = edgekit("convert", model, *ONNX_HOST, "--out", out, cache=cache, check=(2,))
    assert "cnn.onnx" in done.err
    assert (out / "package.json").read_bytes() == before
    load_package(out)


def test_a_folder_that_is_no_package_is_never_replaced(model: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"dear")
    edgekit("convert", model, *ONNX_HOST, "--out", tmp_path / "photos", cache=cache, check=(2,))
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"dear"


def test_a_file_in_the_way_of_the_package_is_a_usage_error(model: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("dear")
    done = edgekit("convert", model, *ONNX_HOST, "--out", tmp_path / "out", cache=cache, check=(2,))
    assert "in the way" in done.err
    assert (tmp_path / "out").read_text() == "dear"


def test_a_contract_that_does_not_fit_is_named(model: Path, cache: Path, tmp_path: Path) -> None:
    contract = tmp_path / "model.toml"
    contract.write_text('[[inputs]]\nname = "x"\nshape = [-1, 8, 8, 3]\n')
    done = edgekit("convert", model, *ONNX_HOST, "--out", tmp_path / "out", cache=cache, check=(2,))
    assert "model.toml: inputs.x.shape" in done.err


def _wrong_for_int8(path: Path) -> Path:
    """A model whose int8 form must be wrong: one output of two scales that share a tensor's range."""
    g = GraphBuilder((4,))
    small = g.op("Mul", "x", g.constant(np.array([1, 1, 1, 1e-4], np.float32)))
    y = g.op("MatMul", small, g.constant(np.diag([1, 1, 1, 1]).astype(np.float32)))
    y = g.op("Mul", y, g.constant(np.array([1e-6, 1e-6, 1e-6, 1e4], np.float32)))
    return save(g.model(y, [4]), path)


def test_a_breach_is_refused_without_a_file_and_ships_only_when_allowed(cache: Path, tmp_path: Path) -> None:
    model = _wrong_for_int8(tmp_path / "wrong.onnx")
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.default_rng(0).random((100, 4), np.float32))
    out = tmp_path / "out"
    options = (*ONNX_HOST, "--calibration", data, "--validation", data, "--out", out, "--json")
    done = edgekit("convert", model, *options, cache=cache, check=(3,))
    result = json.loads(done.out)
    assert [i["reason_code"] for i in result["refused"]] == ["accuracy_breach"]
    assert "most noise is added by" in result["refused"][0]["detail"]
    assert [i["precision"] for i in result["variants"]] == ["fp32"]
    assert not list(out.rglob("*int8*"))
    done = edgekit("convert", model, *options, "--allow-breach", cache=cache)
    verdicts = {i["precision"]: i["verification"]["verdict"] for i in json.loads(done.out)["variants"]}
    assert verdicts == {"fp32": "pass", "int8": "breach"}


_WITHOUT_SIGNAL = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from edgekit.cli.main import main
main()
"""


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_keeps_the_older_package_and_says_so(model: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgekit("convert", model, *ONNX_HOST, "--precision", "fp32", "--out", out, cache=cache)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    data = samples(tmp_path / "val.npz", 500)
    command = [
        sys.executable,
        "-c",
        _WITHOUT_SIGNAL,
        "convert",
        model,
        *ONNX_HOST,
        "--validation",
        data,
        "--out",
        out,
    ]
    done = subprocess.run(
        [str(item) for item in command],
        preexec_fn=_limit_file_size,  # the test's full disk
        capture_output=True,
        text=True,
        env={**os.environ, "EDGEKIT_CACHE": str(cache)},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "free some space" in done.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".out.*"))


def test_init_writes_a_contract_that_converts(model: Path, cache: Path, tmp_path: Path) -> None:
    edgekit("init", model, cache=cache)
    text = (tmp_path / "model.toml").read_text()
    assert 'name = "x"' in text
    assert "shape = [-1, 3, 8, 8]" in text
    assert 'task = "classification"' in text
    edgekit("convert", model, *ONNX_HOST, "--precision", "fp32", "--out", tmp_path / "out", cache=cache)
    assert load_package(tmp_path / "out").ref == "cnn@1.0.0"


def test_init_never_overwrites_a_contract_unasked(model: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text("# mine\n")
    edgekit("init", model, cache=cache, check=(2,))
    assert (tmp_path / "model.toml").read_text() == "# mine\n"
    edgekit("init", model, "--force", cache=cache)


def test_what_a_tool_says_goes_into_a_package_without_this_machines_folders(tmp_path: Path) -> None:
    cache, home = tmp_path / "cache", Path.home()
    said = f"{cache}/8e/.stage-x/files/model.tflite: '{home}/tools/bin/python' in {cache}: /layer1/conv1"
    assert without_places(said, (cache,)) == "model.tflite: 'python' in …: /layer1/conv1"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"budget": ""}, "--budget"),
        ({"measurements": (Path("figures.json"),)}, "--measurements"),
        ({"deployment_target": "iOS16"}, "--deployment-target"),
        ({"seed": -1}, "--seed"),
        ({"limits": Limits(seconds=0.0)}, "--time-limit"),
        ({"limits": Limits(memory_mb=-1)}, "--memory-limit"),
        ({"precisions": (":int8",)}, ":int8"),
    ],
)
def test_an_option_that_could_say_nothing_is_not_passed_over(
    model: Path, cache: Path, workers: Pool, options: dict[str, Any], where: str
) -> None:
    with pytest.raises(UsageError, match=where):
        converted(model, cache, workers, **options)
    assert not (model.parent / "out").exists()


def test_a_conversion_that_is_terminated_leaves_no_folder(model: Path, cache: Path, tmp_path: Path) -> None:
    work = tmp_path / "tmp"
    work.mkdir()
    command = [
        sys.executable,
        "-m",
        "edgekit",
        "convert",
        str(model),
        *ONNX_HOST,
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {**os.environ, "TMPDIR": str(work), "EDGEKIT_CACHE": str(cache / "new")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 30
        while process.poll() is None and not list(work.iterdir()) and time.monotonic() < end:
            time.sleep(0.005)
        process.terminate()
        assert process.wait(30) != 0
    assert list(work.iterdir()) == []
    assert not (tmp_path / "out").exists()
