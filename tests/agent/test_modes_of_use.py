"""Modes chosen in configuration: a stream over MQTT topics, batch files with what a slot runs."""

from __future__ import annotations

import asyncio
import json
import os
import select
import tty
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.topics import DeviceTopic
from edgekit_agent import modes
from edgekit_agent.config import Batch, Config, Home, Stream
from edgekit_agent.detect import Detected
from edgekit_agent.errors import ConfigError
from edgekit_agent.serving.serial_client import SerialModel
from tests.agent.harness import CONFIG, make_home, running
from tests.simulators import toy_model
from tests.simulators.service import FakeService


async def test_a_sample_on_the_slots_topic_is_answered_on_its_out_topic(
    tmp_path: Path, service: FakeService
) -> None:
    toy = toy_model.make()
    service.add(toy)
    config = replace(CONFIG, modes=("stream",), streams=(Stream(kind="mqtt", slot="toy"),))
    async with running(tmp_path, service, config=config) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
        sent: list[tuple[str, str | None, bytes]] = []

        def publish(leaf: str, payload: bytes, *, retain: bool = False, slot: str | None = None) -> bool:
            sent.append((leaf, slot, payload))
            return True

        agent.supervisor._link.publish = publish  # type: ignore[method-assign]  # the test's own broker
        topic = DeviceTopic(tenant="acme", device="dev-1", leaf="in", slot="toy")
        agent.supervisor._incoming(topic, json.dumps({"inputs": {"x": [0, 1, 0, 0]}}).encode())
        agent.supervisor._incoming(replace(topic, slot="other"), b"{}")
        await agent.until(lambda: bool([item for item in sent if item[0] == "out"]), "it is answered")
        await asyncio.sleep(0.1)
        answers = [item for item in sent if item[0] == "out"]
        assert [slot for _, slot, _ in answers] == ["toy"], "a slot without a stream is left alone"
        assert "error" not in json.loads(answers[0][2])


async def test_a_slot_answers_frames_where_its_serial_line_says_so(
    tmp_path: Path, service: FakeService
) -> None:
    pytest.importorskip("serial", reason="pyserial is not installed")
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    toy = toy_model.make()
    service.add(toy)
    stream = Stream(kind="serial", slot="toy", port=os.ttyname(theirs), form="frames")
    config = replace(CONFIG, modes=("stream",), streams=(stream,))
    async with running(tmp_path, service, config=config) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
        device = await asyncio.to_thread(SerialModel, Far(ours), timeout=10)
        sample = np.asarray([[0, 1, 0, 0]], np.float32)
        answer = await asyncio.to_thread(device.run, {"x": sample})
    assert device.description.model.startswith("toy@")
    assert all(np.isfinite(values).all() for values in answer.values())
    os.close(ours)
    os.close(theirs)


class Far:
    """The other end of the agent's pty as a client's line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int = 1) -> bytes:
        ready, _, _ = select.select([self._descriptor], [], [], 0.05)
        return os.read(self._descriptor, size) if ready else b""

    def write(self, data: bytes) -> None:
        os.write(self._descriptor, data)


async def _installed(folder: Path, service: FakeService) -> Home:
    toy = toy_model.make()
    service.add(toy)
    async with running(folder, service) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
    return make_home(folder, service)[0]


async def test_a_batch_computes_files_with_what_the_slot_runs(
    tmp_path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = await _installed(tmp_path / "home", service)
    inputs, labels = toy_model.samples()
    np.savez(tmp_path / "samples.npz", x=inputs, labels=labels)
    places = {"litert": "tests.simulators.toy_model:ToyRuntime"}
    monkeypatch.setattr(modes, "detect_apart", lambda home: Detected(facts=toy_model.FACTS, runtimes=places))
    batch = Batch(slot="toy", input=str(tmp_path / "samples.npz"), output=str(tmp_path / "out"))
    result = modes.run_batches(home, Config(modes=("batch",), batches=(batch,)))
    assert result[0].facts["samples"] == len(labels)
    assert result[0].facts["accuracy"] == 1.0
    assert (tmp_path / "out" / "samples.npz").exists()


def test_a_batch_for_an_empty_slot_is_refused(tmp_path: Path, service: FakeService) -> None:
    home, _ = make_home(tmp_path, service)
    with pytest.raises(ConfigError, match=r"\[\[batch\]\]"):
        modes.run_batches(home, Config(modes=("batch",)))
    batch = Batch(slot="toy", input="x", output="y")
    with pytest.raises(ConfigError, match="runs nothing yet"):
        modes.run_batches(home, Config(modes=("batch",), batches=(batch,)))
