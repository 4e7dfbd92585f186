"""Arm NN on the device: served through a child that may crash, or through upstream's delegate."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import armnn
from edgekit.digest import sha256_file
from edgekit.errors import UnavailableError
from edgekit.package import File, Requirements
from edgekit_agent.config import Config
from edgekit_agent.detect import detect
from edgekit_agent.errors import ModelError
from edgekit_agent.installed import Installed
from edgekit_agent.runtimes import armnn as runtime_module
from edgekit_agent.runtimes.armnn import CONFIGURATION, ArmnnRuntime, configured, release_beside
from edgekit_agent.serving.host import ModelHost
from tests.agent.models import WEIGHTS, classes_of, installed, samples
from tests.conftest import FrozenClock
from tests.converters.armnn_files import graph, require_armnn, written


def on_armnn(folder: Path, *, bias: bool = True) -> Installed:
    """The classifier as an armnn variant; without a bias Arm NN 20.08 refuses it."""
    thing = installed(folder, kind="tflite")
    path = folder / thing.variant.files[0].path
    if bias:
        numbers = ",".join(str(item) for item in WEIGHTS.reshape(-1))
        model = graph(
            f"g (float[N,4] x) => (float[N,3] y) <float[4,3] w = {{{numbers}}}> {{ y = MatMul(x, w) }}"
        )
        path.write_bytes(written(model).data)
    (path.parent / CONFIGURATION).write_text(json.dumps({"delegate": {"backends": "CpuAcc,CpuRef"}}))
    file = File(path=thing.variant.files[0].path, sha256=sha256_file(path), bytes=path.stat().st_size)
    inputs, outputs = (
        tuple(replace(item, artifact_name=None if bias else item.artifact_name) for item in items)
        for items in (thing.variant.inputs, thing.variant.outputs)
    )
    variant = replace(
        thing.variant,
        target="armnn",
        files=(file,),
        requires=Requirements(runtime="armnn", min_runtime="20.08"),
        inputs=inputs,
        outputs=outputs,
    )
    return replace(thing, variant=variant, manifest=replace(thing.manifest, variants=(variant,)))


@contextmanager
def loaded(folder: Path) -> Iterator[Any]:
    """A session through pyarmnn."""
    require_armnn()
    session = ArmnnRuntime().load(folder, on_armnn(folder).variant)
    try:
        yield session
    finally:
        session.close()


def test_the_agent_serves_through_pyarmnn_and_tells_the_backend(tmp_path: Path, clock: FrozenClock) -> None:
    """The real host: prepared, switched, asked; telemetry names what computed."""
    release = require_armnn()
    thing = on_armnn(tmp_path)
    host = ModelHost({"armnn": ArmnnRuntime()}, threads=1, clock=clock)
    candidate = host.prepare(thing)
    host.switch("animals", candidate)
    answer = candidate.session.run({"x": samples(7)})["y"]
    assert list(answer.argmax(axis=1)) == classes_of(samples(7))
    assert candidate.session.backend == "CpuRef"
    assert candidate.runtime == f"armnn {release}"
    window = candidate.counters.cut({})
    assert (window.runtime, window.backend) == (f"armnn {release}", "CpuRef")
    candidate.close()


def test_batches_answer_each_sample_alike(tmp_path: Path) -> None:
    with loaded(tmp_path) as session:
        inputs = samples(9)
        np.testing.assert_allclose(session.run({"x": inputs})["y"], inputs @ WEIGHTS, atol=1e-5)


def test_a_child_that_dies_under_a_request_costs_that_request_alone(tmp_path: Path) -> None:
    with loaded(tmp_path) as session:
        first = session.pid
        os.kill(first, signal.SIGSTOP)  # so that the request is under way when it dies
        killer = threading.Timer(0.2, os.kill, (first, signal.SIGKILL))
        killer.start()
        with pytest.raises(ModelError, match="SIGKILL") as failed:
            session.run({"x": samples(1)})
        assert failed.value.code == "runtime_failed"
        assert session.run({"x": samples(3)})["y"].shape == (3, 3)
        assert session.pid != first


def test_a_closed_session_leaves_no_process(tmp_path: Path) -> None:
    with loaded(tmp_path) as session:
        pid = session.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_file_arm_nn_refuses_is_told_before_anything_switches(tmp_path: Path) -> None:
    if require_armnn() != "20.08":
        pytest.skip("later releases take a dense layer without a bias")
    with pytest.raises(UnavailableError) as refused:
        ArmnnRuntime().load(tmp_path, on_armnn(tmp_path, bias=False).variant)
    assert refused.value.code == "model_refused"
    assert "Arm NN" in str(refused.value)


def test_without_arm_nn_there_is_no_version_and_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(armnn.VARIABLE, str(tmp_path / "nowhere"))
    monkeypatch.setattr(runtime_module, "_FOLDERS", (str(tmp_path),))
    assert ArmnnRuntime().version() is None
    assert "armnn" not in detect(Config()).facts.runtimes
    with pytest.raises(UnavailableError, match="python3-pyarmnn") as missing:
        ArmnnRuntime().load(tmp_path, on_armnn(tmp_path).variant)
    assert missing.value.code == "runtime_missing"


def test_the_device_reports_arm_nn_among_its_runtimes() -> None:
    release = require_armnn()
    assert detect(Config()).facts.runtimes["armnn"] == release


def test_the_delegate_is_taken_first_with_the_variants_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library itself is in no package index: here LiteRT's loader is replaced, and asked what it got."""
    library = tmp_path / "lib" / "libarmnnDelegate.so"
    library.parent.mkdir()
    library.touch()
    (library.parent / "libarmnn.so.33").touch()
    monkeypatch.setenv(runtime_module.VARIABLE, str(library))
    asked: list[Any] = []
    interpreter = sys.modules.get("ai_edge_litert.interpreter") or types.ModuleType("interpreter")
    monkeypatch.setattr(interpreter, "load_delegate", lambda *a, **k: asked.append((a, k)), raising=False)
    monkeypatch.setattr("edgekit_agent.runtimes.litert_session._Worker._make", _made)
    runtime = ArmnnRuntime()
    assert runtime.version() == "23.08"
    with pytest.raises(UnavailableError, match="delegate of"):
        runtime.load(tmp_path, on_armnn(tmp_path).variant, threads=2)
    ((path,), options) = asked[0]
    assert path == str(library)
    assert options["options"] == {"backends": "CpuAcc,CpuRef", "number-of-threads": "2"}


def _made(worker: Any) -> Any:
    worker._delegate.load()
    raise RuntimeError(f"the delegate of {worker._delegate.name}")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"delegate": 5}', '{"delegate": {"threads": 2}}', "\xff"])
def test_a_strange_configuration_falls_back_to_every_backend(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIGURATION).write_text(text, encoding="latin-1")
    assert configured(tmp_path / CONFIGURATION)["backends"] == "CpuAcc,GpuAcc,CpuRef"


def test_a_library_without_a_version_beside_it_is_no_release(tmp_path: Path) -> None:
    assert release_beside(tmp_path / "libarmnnDelegate.so") is None
    (tmp_path / "libarmnn.so.22").touch()
    assert release_beside(tmp_path / "libarmnnDelegate.so") == "20.08"
