"""The armnn target: MLPerf Tiny exact, crashes contained, absence labelled, few samples told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.quantization_inputs import MODELS
from edgekit import armnn
from edgekit.armnn import ArmnnChild, ArmnnError
from edgekit.package import Requirements, Tensor, Variant, load_package
from edgekit.profile import profiles_folder
from edgekit_converters import hub
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.engine.tasks import execute
from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.source import recognise
from edgekit_converters.targets import load_target
from edgekit_converters.targets.armnn import ArmnnTarget, cost, session
from edgekit_converters.targets.armnn.delegate import CONFIGURATION
from edgekit_converters.targets.tflite.lower import build as plain
from edgekit_converters.values import Built, Job
from tests.converters.armnn_files import compared, graph, read_back, require_armnn
from tests.converters.quant_models import canonical, residual, samples, stored

TINY = {"resnet": 6, "vww": 3, "kws": 6, "ad01": 12}
"""MLPerf Tiny, and on how many samples: the larger ones take a third of a second each."""


def job(folder: Path, precision: str = "int8", **changes: Any) -> Job:
    """A residual network to be built."""
    model, data = canonical(residual), samples(32)
    folder.mkdir(exist_ok=True)
    ranges, calibration = stored(model, data, folder)
    save(model, folder / "hub.onnx")
    shape = (-1, 3, 8, 8)
    return replace(
        Job(
            target="armnn",
            precision=precision,
            source=recognise(folder / "hub.onnx"),
            hub=str(folder / "hub.onnx"),
            inputs=(Tensor(name="x", dtype="float32", shape=shape),),
            outputs=(Tensor(name=model.graph.outputs[0].name or "", dtype="float32", shape=(-1, 10)),),
            calibration=str(calibration) if precision == "int8" else None,
            ranges=str(ranges) if precision == "int8" else None,
        ),
        **changes,
    )


def save(model: Any, path: Path) -> None:
    """The graph as a file."""
    path.write_bytes(hub.to_proto(model).SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TINY))
def test_mlperf_tiny_int8_is_what_litert_gives(name: str, zoo: Path, tmp_path: Path) -> None:
    """Exactly, on the first real inputs; docs/targets/armnn.md has the figures on more of them."""
    require_armnn()
    _, reference, inputs = MODELS[name]
    model = read_back(zoo / reference)
    save(model, tmp_path / "hub.onnx")
    inner, outer = model.graph.inputs[0], model.graph.outputs[0]
    task = job(tmp_path / "job", calibration=None, ranges=None, hub=str(tmp_path / "hub.onnx"))
    task = replace(task, inputs=(_port(inner),), outputs=(_port(outer),))
    built = ArmnnTarget().build(task, tmp_path)
    assert built.facts["int8_op_ratio"] == 1.0
    found = compared(
        (tmp_path / built.main).read_bytes(), {str(inner.name): inputs(zoo)[1][: TINY[name]]}, tmp_path
    )
    assert found.range > 50
    assert found.largest == 0


def _port(value: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Tensor(name=value.name, dtype=str(value.dtype.numpy()), shape=shape)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_variant_runs_as_litert_runs_it(precision: str, tmp_path: Path) -> None:
    require_armnn()
    built = load_target("armnn").build(job(tmp_path, precision), tmp_path)
    data = {"x": samples(20, seed=9)["x"]}
    opened = ArmnnTarget().open(tmp_path, built, kernels="CpuRef", threads=1)
    assert opened is not None
    found = opened.run(data)
    assert opened.backend == "CpuRef"
    (output,) = built.outputs
    assert found[output.name].shape == (20, 10)
    difference = opened.ran["metrics"]["litert_difference"]
    assert difference["n"] == 20
    if precision == "int8":
        assert difference[output.name]["max_steps"] <= 1
    else:
        assert difference[output.name]["max_error"] < 1e-5


def test_the_configuration_for_the_agent_lies_beside_the_model(tmp_path: Path) -> None:
    built = ArmnnTarget().build(job(tmp_path, "fp32"), tmp_path)
    facts = json.loads((tmp_path / CONFIGURATION).read_text())
    assert facts["delegate"]["backends"] == "CpuAcc,GpuAcc,CpuRef"
    assert facts["release"] == built.requires.min_runtime == "20.08"


def test_a_slow_runtime_runs_fewer_samples_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_armnn()
    built = ArmnnTarget().build(job(tmp_path, "fp32"), tmp_path)
    monkeypatch.setattr(cost, "WORK", 5 * cost.work(tmp_path / built.main))
    save_arrays(tmp_path / "data.npz", {"x": samples(100)["x"]})
    told = execute(
        "armnn", str(tmp_path), built.to_dict(), str(tmp_path / "data.npz"), str(tmp_path / "o.npz")
    )
    assert told is not None
    assert told["samples"] == [0, 25, 50, 74, 99]
    found = load_arrays(tmp_path / "o.npz")
    assert all(len(value) == 5 for value in found.values())
    assert told["metrics"]["litert_difference"]["n"] == 5


def test_work_is_counted_and_a_huge_network_gets_two_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = ArmnnTarget().build(job(tmp_path, "fp32"), tmp_path)
    path = tmp_path / built.main
    weighted = 64 * 8 * 27 + 64 * 8 * 72 + 64 * 8 * 8 + 80
    assert weighted < cost.work(path) < 3 * weighted
    assert cost.affordable(path, 7) == 7
    monkeypatch.setattr(cost, "WORK", 1)
    assert cost.affordable(path, 7) == cost.LEAST


def test_a_file_that_ends_the_process_is_a_refusal_with_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dense layer with a scale a row aborts Arm NN 20.08; ours stays alive."""
    if require_armnn() != "20.08":
        pytest.skip("the crash is that of 20.08")
    path = tmp_path / "model.tflite"
    path.write_bytes(_crashing())
    built = _as_built("x", "y")
    with pytest.raises(Refusal) as refused:
        session.ArmnnSession.on(path, built, backend="CpuRef")
    assert refused.value.code == "tool_failed"
    assert "SIGABRT" in str(refused.value)
    assert "optimize" in str(refused.value)


def _crashing() -> bytes:
    from edgekit.rules import load_rules
    from edgekit_converters.quantize.qdq import quantize
    from edgekit_converters.quantize.ranges import Ranges
    from tests.converters.quant_models import known

    model = graph(
        "g (float[1,4] x) => (float[] y) <float[4,3] w = {1,2,3,4,5,6,7,8,9,1,2,9}> { y = MatMul(x, w) }"
    )
    data = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
    rules = load_rules("tflite-2.3")
    return plain(
        quantize(model, Ranges(known(model, data), "minmax"), rules, precision="int8", finer=True)
    ).data


def _as_built(inner: str, outer: str) -> Built:
    return Built(
        main="model.tflite",
        inputs=(Tensor(name=inner, dtype="float32", shape=(1, 4)),),
        outputs=(Tensor(name=outer, dtype="float32", shape=(1, 3)),),
        requires=Requirements(runtime="armnn"),
        route="",
    )


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'stage: parse' >&2\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv(armnn.VARIABLE, str(program))
    with pytest.raises(ArmnnError) as ended:
        ArmnnChild(tmp_path / "model.tflite", seconds=0.5)
    assert (ended.value.code, ended.value.stage) == ("tool_timeout", "parse")


def test_a_file_that_is_no_model_is_told_and_nothing_is_left_running(tmp_path: Path) -> None:
    require_armnn()
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model at all")
    with pytest.raises(ArmnnError) as refused:
        ArmnnChild(path)
    assert refused.value.stage == "parse"


def test_without_pyarmnn_there_is_no_kernel_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kernel set: the engine labels the variant *prepared*."""
    monkeypatch.setenv(armnn.VARIABLE, str(tmp_path / "nowhere"))
    assert armnn.version() is None
    assert ArmnnTarget().kernel_sets == ()
    assert ArmnnTarget().version() == ""


def test_a_file_for_a_later_release_is_not_run_on_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(armnn, "version", lambda: "20.08")
    built = SimpleNamespace(requires=Requirements(runtime="armnn", min_runtime="23.08"))
    later: Any = built
    assert session.ArmnnSession.on(Path("model.tflite"), later, backend="CpuRef") is None


def shipped(
    folder: Path, cache: Path, workers: Pool, *, profile: str = "armnn-linux", **options: Any
) -> Variant:
    """The armnn variant of the residual network for the shipped profile, or for one's own."""
    request = Request(
        source=folder / "hub.onnx",
        profiles=(profile,),
        targets=("armnn",),
        cache=cache,
        out=folder / "pk",
        **options,
    )
    convert(request, pool=workers)
    (variant,) = load_package(folder / "pk").variants
    return variant


def test_the_profile_ships_a_variant_that_arm_nn_ran(tmp_path: Path, cache: Path, workers: Pool) -> None:
    """From source to package: who ran it, on how many samples, what lies beside the model."""
    release = require_armnn()
    job(tmp_path)
    save_arrays(tmp_path / "cal.npz", samples(32))
    variant = shipped(tmp_path, cache, workers, calibration=tmp_path / "cal.npz")
    assert variant.precision == "int8"
    assert (variant.requires.runtime, variant.requires.min_runtime) == ("armnn", "20.08")
    checked = variant.verification
    assert (checked.method, checked.runtime, checked.runtime_version) == ("executed", "armnn", release)
    assert (checked.backend, checked.n) == ("CpuRef", 32)
    assert variant.probe is not None
    assert {Path(item.path).name for item in variant.files} == {"model.tflite", CONFIGURATION}


def test_without_arm_nn_the_variant_is_labelled_prepared(
    tmp_path: Path, cache: Path, workers: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(armnn.VARIABLE, str(tmp_path / "nowhere"))
    job(tmp_path, "fp32")
    variant = shipped(tmp_path, cache, workers, precisions=("fp32",))
    assert variant.verification.method == "prepared"
    assert variant.verification.reasons == ("not_executed",)
    assert variant.verification.runtime is None


def test_a_variant_for_a_later_release_is_labelled_prepared(
    tmp_path: Path, cache: Path, workers: Pool
) -> None:
    """The delegate's rules are for 25.11; what is here is older, and its word would be no proof."""
    require_armnn()
    job(tmp_path, "fp32")
    own = (profiles_folder() / "armnn-linux.toml").read_text(encoding="utf-8")
    own = own.replace('name = "armnn-linux"', 'name = "own"').replace("armnn-20.08", "armnn-25.11")
    (tmp_path / "own.toml").write_text(own, encoding="utf-8")
    variant = shipped(tmp_path, cache, workers, profile=str(tmp_path / "own.toml"), precisions=("fp32",))
    assert variant.verification.method == "prepared"
    assert variant.requires.min_runtime == "25.11"
