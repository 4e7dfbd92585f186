"""Telemetry windows: what is counted, that it merges, what it costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.package import Distribution, Reference
from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.observe import Observer
from edgekit_agent.windows import ResourceMeter
from tests.agent.models import REFERENCE, classes_of, installed, samples
from tests.conftest import FrozenClock

SLOT = "animals"


def served(clock: FrozenClock, folder: Path, **options: Any) -> ModelHost:
    host = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    host.switch(SLOT, host.prepare(installed(folder, **options)))
    host.commit(SLOT)
    return host


def test_a_window_counts_in_the_packages_bins(clock: FrozenClock, tmp_path: Path) -> None:
    host = served(clock, tmp_path)
    inputs = samples(7)
    host.infer(SLOT, {"x": inputs}, queued_ms=2.0)
    clock.advance(10)
    [window] = host.collect()
    expected = np.bincount(classes_of(inputs), minlength=3)
    assert window.predictions["y"].counts == tuple(expected)
    assert window.confidence["y"].total == 7
    assert window.inputs["x"].total == 28
    assert window.inputs["x"].counts[2] == int((inputs >= 0.5).sum())
    assert (window.requests, window.seconds, window.trial) == (1, 10, False)
    assert set(window.latency) == {"queue", "preprocess", "infer", "postprocess", "total"}
    assert window.latency["queue"].max_ms == 2.0
    assert window.runtime.startswith("onnxruntime ")
    assert window.backend == "CPUExecutionProvider"
    assert window.resources["rss_mb"] > 1


def test_nothing_is_counted_twice_or_lost_between_windows(clock: FrozenClock, tmp_path: Path) -> None:
    host = served(clock, tmp_path)
    counted = 0
    for size in (3, 0, 5):
        for _ in range(size):
            host.infer(SLOT, {"x": samples(1)})
        counted += sum(window.requests for window in host.collect())
    assert counted == 8
    [(slot, _, totals)] = host.totals()
    assert (slot, totals.requests, totals.latency["total"].count) == (SLOT, 8, 8)


def test_without_a_reference_classes_are_counted_all_the_same(clock: FrozenClock, tmp_path: Path) -> None:
    host = served(clock, tmp_path, reference=Reference())
    host.infer(SLOT, {"x": samples(3)})
    [window] = host.collect()
    assert window.predictions["y"].counts == (1, 1, 1)
    assert window.inputs == {}


def test_values_on_an_edge_and_outside_fall_into_the_right_bins() -> None:
    reference = Reference(outputs={"y": Distribution(kind="bins", counts=(0, 0, 0), edges=(0.0, 1.0))})
    outputs = {"y": np.array([[-5.0], [0.0], [0.5], [1.0], [9.0]])}
    [(key, bins)] = Observer(reference).observe({}, outputs, {})
    assert key == ("predictions", "y")
    assert bins == [0, 1, 1, 2, 2]


def test_a_reference_whose_edges_do_not_fit_is_left_alone() -> None:
    reference = Reference(inputs={"x": Distribution(kind="bins", counts=(1, 1), edges=(0.0, 1.0))})
    assert Observer(reference).observe({"x": samples(1)}, {}, {}) == []


def test_sampling_reaches_every_value_in_time() -> None:
    reference = Reference(
        inputs={"x": Distribution(kind="bins", counts=(0,) * 1001, edges=tuple(range(1000)))}
    )
    observer, seen = Observer(reference), set[int]()
    picture = np.arange(1000, dtype=np.float32).reshape(1, 10, 100)
    for _ in range(20):
        [(_, bins)] = observer.observe({"x": picture}, {}, {})
        assert len(bins) <= 64
        seen |= set(bins)
    assert seen == set(range(1, 1001))


def test_counting_costs_less_than_five_percent_of_a_millisecond(clock: FrozenClock, tmp_path: Path) -> None:
    host = served(clock, tmp_path)
    candidate = host.active(SLOT)
    assert candidate is not None
    inputs = {"x": samples(1)}
    result = candidate.run(inputs)
    observer = Observer(REFERENCE)
    rounds, best = 500, float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(rounds):
            found = observer.observe(inputs, result.outputs, result.decisions)
            candidate.counters.answered(result.stages, found)
        best = min(best, (time.perf_counter() - began) / rounds)
    assert best < 50e-6


def test_gauges_name_memory_and_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    zone = tmp_path / "thermal_zone0"
    zone.mkdir()
    (zone / "temp").write_text("47500\n")
    monkeypatch.setattr("edgekit_agent.windows._THERMAL", tmp_path)
    meter = ResourceMeter()
    time.sleep(0.01)
    gauges = meter.read()
    assert gauges["temperature_c"] == 47.5
    assert gauges["memory_free_mb"] > 0
    assert gauges["cpu_percent"] >= 0
