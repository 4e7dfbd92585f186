"""The model host: swaps that drop nothing, trials, windows."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import EdgekitError, RefusedError, UnavailableError
from edgekit.package import Requirements
from edgekit.ports import Arrays
from edgekit_agent.errors import BusyError, ModelError, RequestError, UnknownModelError
from edgekit_agent.runtimes.litert import LiteRtRuntime
from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.host import Candidate, ModelHost
from tests.agent.models import classes_of, installed, samples
from tests.conftest import FrozenClock

SLOT = "animals"


@pytest.fixture
def host(clock: FrozenClock) -> Iterator[ModelHost]:
    made = ModelHost({"onnxruntime": OnnxRuntime(), "litert": LiteRtRuntime()}, threads=1, clock=clock)
    yield made
    made.close()


def serve(host: ModelHost, folder: Path, **options: Any) -> Candidate:
    candidate = host.prepare(installed(folder, **options))
    host.switch(SLOT, candidate)
    return candidate


def test_a_prepared_candidate_gets_no_traffic(host: ModelHost, tmp_path: Path) -> None:
    serve(host, tmp_path / "1", version="1")
    host.prepare(installed(tmp_path / "2", version="2"))
    assert host.infer(SLOT, {"x": samples(1)}).ran.manifest.version == "1"


def test_thousands_of_requests_during_a_hundred_swaps_none_fails(host: ModelHost, tmp_path: Path) -> None:
    things = [
        installed(tmp_path / "a", kind="onnx", version="1"),
        installed(tmp_path / "b", kind="tflite", version="2"),
    ]
    host.switch(SLOT, host.prepare(things[0]))
    host.commit(SLOT)
    inputs, stop = samples(3), threading.Event()
    expected = classes_of(inputs)
    done, failures, slowest = itertools.count(), list[BaseException](), [0.0]

    def client() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            try:
                answer = host.infer(SLOT, {"x": inputs})
                assert list(answer.decisions["y"].classes) == expected
            except (EdgekitError, AssertionError) as error:
                failures.append(error)
                return
            slowest[0] = max(slowest[0], time.perf_counter() - began)
            next(done)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(100):
        host.switch(SLOT, host.prepare(things[(turn + 1) % 2]))
        if turn % 7 == 3:
            assert host.revert(SLOT)
        else:
            host.commit(SLOT)
    stop.set()
    for thread in threads:
        thread.join()
    windows = host.collect()
    assert failures == []
    assert next(done) > 2000
    assert slowest[0] < 5.0
    assert sum(window.requests for window in windows) <= next(done)
    assert not any(window.errors for window in windows)


class SlowSession:
    """Passes on to a real session, but waits inside until told."""

    def __init__(self, session: Any) -> None:
        self._session, self.go, self.inside, self.closed = (
            session,
            threading.Event(),
            threading.Event(),
            False,
        )
        self.go.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, inputs: Arrays) -> Arrays:
        self.inside.set()
        assert self.go.wait(10)
        assert not self.closed, "freed under a running request"
        result: Arrays = self._session.run(inputs)
        return result

    def close(self) -> None:
        self.closed = True


class SlowRuntime(OnnxRuntime):
    def load(self, *args: Any, **options: Any) -> Any:
        return SlowSession(super().load(*args, **options))


def test_the_old_model_lives_until_its_last_request_is_out(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": SlowRuntime()}, threads=1, clock=clock)
    old = serve(host, tmp_path / "1", version="1")
    host.commit(SLOT)
    slow: Any = old.session
    slow.go.clear()
    slow.inside.clear()
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(host.infer(SLOT, {"x": samples(1)}).ran.manifest.version)
    )
    thread.start()
    assert slow.inside.wait(10)
    serve(host, tmp_path / "2", version="2")
    began = time.perf_counter()
    host.commit(SLOT)
    assert time.perf_counter() - began < 0.5, "a commit waits for nobody"
    assert host.infer(SLOT, {"x": samples(1)}).ran.manifest.version == "2"
    assert not slow.closed
    slow.go.set()
    thread.join(10)
    assert answers == ["1"]
    assert slow.closed
    assert old.close()


def test_a_swap_frees_the_old_models_memory(host: ModelHost, tmp_path: Path) -> None:
    old = weakref.ref(serve(host, tmp_path / "1").session)
    serve(host, tmp_path / "2", version="2")
    host.commit(SLOT)
    assert old() is None


def test_revert_goes_back_and_frees_the_one_on_trial(host: ModelHost, tmp_path: Path) -> None:
    serve(host, tmp_path / "1", version="1")
    host.commit(SLOT)
    bad = serve(host, tmp_path / "2", version="2", gain=-1.0)
    host.infer(SLOT, {"x": samples(1)})
    assert host.revert(SLOT)
    assert host.infer(SLOT, {"x": samples(1)}).ran.manifest.version == "1"
    assert bad.close()
    by_version = {window.installed.manifest.version: window for window in host.collect()}
    assert (by_version["2"].requests, by_version["2"].trial) == (1, True)
    assert (by_version["1"].requests, by_version["1"].trial) == (1, False)


def test_revert_without_a_previous_says_so_and_remove_empties_the_slot(
    host: ModelHost, tmp_path: Path
) -> None:
    serve(host, tmp_path)
    assert host.revert(SLOT) is False
    host.remove(SLOT)
    with pytest.raises(BusyError):
        host.infer(SLOT, {"x": samples(1)})


def test_after_a_commit_there_is_nothing_to_revert_to(host: ModelHost, tmp_path: Path) -> None:
    serve(host, tmp_path / "1")
    serve(host, tmp_path / "2", version="2")
    host.commit(SLOT)
    assert host.revert(SLOT) is False
    assert host.infer(SLOT, {"x": samples(1)}).ran.manifest.version == "2"


def test_a_candidate_never_switched_in_is_freed_by_close(host: ModelHost, tmp_path: Path) -> None:
    candidate = host.prepare(installed(tmp_path))
    assert candidate.close()
    with pytest.raises(UnavailableError, match="closed"):
        candidate.run_model({"x": samples(1)})


def test_trial_health_counts_only_what_came_since_the_switch(
    host: ModelHost, tmp_path: Path, clock: FrozenClock
) -> None:
    candidate = host.prepare(installed(tmp_path))
    candidate.run({"x": samples(1)})
    host.switch(SLOT, candidate)
    for _ in range(5):
        host.infer(SLOT, {"x": samples(1)})
    with pytest.raises(RequestError):
        host.infer(SLOT, {"x": samples(1)[:, :2]})
    host.collect()
    host.infer(SLOT, {"x": samples(1)})
    clock.advance(3)
    health = host.trial_health(SLOT)
    assert (health.requests, health.client_errors, health.model_errors) == (7, 1, 0)
    assert health.latency.count == 6
    assert health.seconds == 3


def test_a_model_that_answers_nan_is_held_against_the_model(host: ModelHost, tmp_path: Path) -> None:
    serve(host, tmp_path, gain=-1.0, nan=True)
    with pytest.raises(ModelError, match="NaN"):
        host.infer(SLOT, {"x": samples(1)})
    assert host.trial_health(SLOT).model_errors == 1
    assert host.collect()[0].errors == {"model:not_finite": 1}


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "bad_inputs"),
        ({"x": samples(1), "z": samples(1)}, "bad_inputs"),
        ({"x": samples(1).astype(np.float64)}, "bad_dtype"),
        ({"x": samples(1)[:, :3]}, "bad_shape"),
        ({"x": samples(1)[0]}, "bad_shape"),
        ({"x": samples(0)}, "bad_shape"),
        ({"x": np.full((1, 4), np.nan, np.float32)}, "not_finite"),
        ({"x": np.full((1, 4), np.inf, np.float32)}, "not_finite"),
    ],
)
def test_wrong_inputs_are_the_callers_fault(
    host: ModelHost, tmp_path: Path, inputs: dict[str, Any], code: str
) -> None:
    serve(host, tmp_path)
    with pytest.raises(RequestError) as caught:
        host.infer(SLOT, inputs)
    assert caught.value.code == code
    assert host.collect()[0].errors == {f"client:{code}": 1}


def test_an_unknown_slot_names_those_there_are(host: ModelHost, tmp_path: Path) -> None:
    serve(host, tmp_path)
    with pytest.raises(UnknownModelError, match="animals"):
        host.infer("plants", {"x": samples(1)})


def test_a_runtime_that_is_not_here_is_named(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"litert": LiteRtRuntime()}, threads=1, clock=clock)
    with pytest.raises(UnavailableError, match="onnxruntime") as caught:
        host.prepare(installed(tmp_path))
    assert caught.value.code == "runtime_missing"


def test_too_little_memory_keeps_the_old_model(host: ModelHost, tmp_path: Path) -> None:
    serve(host, tmp_path / "1", version="1")
    thing = installed(tmp_path / "2", version="2")
    greedy = replace(thing.variant, requires=Requirements(runtime="onnxruntime", memory_mb=1 << 40))
    with pytest.raises(RefusedError, match="memory"):
        host.prepare(replace(thing, variant=greedy))
    assert host.infer(SLOT, {"x": samples(1)}).ran.manifest.version == "1"


def test_a_failing_load_keeps_the_old_model(host: ModelHost, tmp_path: Path) -> None:
    serve(host, tmp_path / "1", version="1")
    thing = installed(tmp_path / "2", version="2")
    (tmp_path / "2" / thing.variant.files[0].path).write_bytes(b"no model")
    with pytest.raises(UnavailableError):
        host.prepare(thing)
    assert host.infer(SLOT, {"x": samples(1)}).ran.manifest.version == "1"


def test_importing_the_host_does_not_import_numpy() -> None:
    import subprocess
    import sys

    program = (
        "import sys, edgekit_agent.serving.host, edgekit_agent.windows, edgekit_agent.probing\n"
        "assert 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
