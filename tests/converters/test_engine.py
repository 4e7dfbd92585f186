from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import SourceError, StorageError, UnavailableError
from edgekit_converters.engine import cache as cache_module
from edgekit_converters.engine import pool as pool_module
from edgekit_converters.engine.cache import Cache
from edgekit_converters.engine.pool import Limits, Pool
from edgekit_converters.errors import ToolFailed
from edgekit_converters.source import recognise
from tests.converters.graphs import save, small_cnn


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Any]:
    return asdict(recognise(save(small_cnn(), tmp_path / "model.onnx")))


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(Limits(seconds=60)) as found:
        yield found


def test_a_worker_answers_and_stays_warm(pool: Pool, source: dict[str, Any]) -> None:
    first = pool.run("plain", "describe", {"source": source})
    assert first["outputs"][0]["shape"] == [-1, 4]
    start = time.monotonic()
    assert pool.run("plain", "describe", {"source": source}) == first
    assert time.monotonic() - start < 1


def test_an_error_keeps_its_class_and_facts_across_processes(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"\x08\x07garbage")
    with pytest.raises(SourceError) as caught:
        pool.run("plain", "describe", {"source": asdict(recognise(path))})
    assert caught.value.code == "corrupt_source"
    assert caught.value.where == str(path)


def test_a_tool_that_raises_is_contained(pool: Pool, tmp_path: Path, source: dict[str, Any]) -> None:
    with pytest.raises(ToolFailed, match="FileNotFoundError"):
        pool.run("plain", "run_hub", {"hub": "nowhere", "data": "nowhere", "out": str(tmp_path / "o")})
    assert pool.run("plain", "describe", {"source": source})


def test_a_framework_that_is_not_installed_is_named_with_the_extra(pool: Pool) -> None:
    source = {"path": "model.keras", "kind": "keras", "digest": "d", "bytes": 1}
    with pytest.raises(UnavailableError, match=r"edgekit-converters\[tf\]") as caught:
        pool.run("plain", "describe", {"source": source})  # plain workers cannot see TensorFlow
    assert caught.value.code == "tool_not_installed"


def test_a_crash_is_contained_and_the_next_task_runs(pool: Pool, source: dict[str, Any]) -> None:
    pool.run("plain", "describe", {"source": source})
    (worker,) = pool._alive
    os.kill(worker._process.pid, signal.SIGSEGV)
    with pytest.raises(ToolFailed, match="signal 11"):
        pool.run("plain", "describe", {"source": source})
    assert pool.run("plain", "describe", {"source": source})


def test_a_tool_that_hangs_is_ended(source: dict[str, Any]) -> None:
    with Pool(Limits(seconds=0.05)) as pool, pytest.raises(ToolFailed) as caught:
        pool.run("plain", "describe", {"source": source})
    assert caught.value.code == "tool_timeout"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_tool_that_eats_memory_is_ended(source: dict[str, Any]) -> None:
    with Pool(Limits(memory_mb=2)) as pool, pytest.raises(ToolFailed) as caught:
        pool.run("plain", "describe", {"source": source})
    assert caught.value.code == "tool_out_of_memory"


def test_closing_leaves_no_process(source: dict[str, Any]) -> None:
    with Pool(Limits()) as pool:
        threads = [
            threading.Thread(target=pool.run, args=("plain", "describe", {"source": source}))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        workers = list(pool._alive)
    assert workers
    assert all(worker._process.poll() is not None for worker in workers)


def test_resident_memory_of_a_gone_process_is_zero() -> None:
    assert pool_module._resident_mb(2**30) == 0


def test_a_stage_runs_once(tmp_path: Path) -> None:
    runs = []

    def run(folder: Path) -> Any:
        runs.append(1)
        (folder / "a").write_text("x")
        return {"n": 1}

    cache = Cache(tmp_path / "cache")
    first = cache.stage("s", {"k": 1}, run)
    second = cache.stage("s", {"k": 1}, run)
    cache.stage("s", {"k": 2}, run)
    assert (len(runs), first.cached, second.cached) == (2, False, True)
    assert (second.folder / "a").read_text() == "x"
    assert second.value == {"n": 1}


def test_a_full_cache_drops_what_nobody_used_for_longest(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def write(folder: Path) -> str:
        (folder / "big").write_bytes(b"x" * 1000)
        return "done"

    for index in range(4):
        place = cache.stage("s", {"n": index}, write).folder.parent / "stage.json"
        os.utime(place, (index, index))
    assert cache.stage("s", {"n": 0}, write).cached  # used again: now the youngest
    assert cache.prune(2500) >= 2000
    assert [cache.stage("s", {"n": index}, write).cached for index in (0, 3)] == [True, True]
    assert not cache.stage("s", {"n": 1}, write).cached
    assert Cache(tmp_path / "nowhere").prune(0) == 0


def test_what_other_code_wrote_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Cache(tmp_path).stage("s", {}, lambda _: 1).cached
    assert Cache(tmp_path).stage("s", {}, lambda _: 2).cached
    monkeypatch.setattr(cache_module, "code_digest", lambda: "sha256:other")
    assert Cache(tmp_path).stage("s", {}, lambda _: 3).value == 3


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def fail(folder: Path) -> Any:
        (folder / "half").write_text("x")
        raise ToolFailed("crashed")

    with pytest.raises(ToolFailed):
        cache.stage("s", {}, fail)
    assert not [item for item in (tmp_path / "cache").rglob("*") if item.is_file()]
    assert cache.stage("s", {}, lambda folder: 1).value == 1


def test_a_half_written_stage_is_done_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    stage = cache.stage("s", {}, lambda folder: 1)
    (stage.folder.parent / "stage.json").unlink()
    assert cache.stage("s", {}, lambda folder: 2).value == 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="--cache"):
        Cache(tmp_path / "file").stage("s", {}, lambda folder: 1)
