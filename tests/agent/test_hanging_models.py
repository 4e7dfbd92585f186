"""A model whose inference never returns: what serves afterwards, and how the process gets rid of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.documents import DeviceStep
from edgekit.errors import EdgekitError
from edgekit_agent.config import Limits
from edgekit_agent.journal import Journal
from tests.agent.harness import CONFIG, Agent, make_home, running
from tests.agent.test_lifecycle import answers
from tests.conftest import REPOSITORY
from tests.simulators import toy_model
from tests.simulators.service import FakeService
from tests.simulators.toy_model import Toy

HASTY = replace(CONFIG, limits=Limits(hang_seconds=0.4))
INPUTS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 0, 0]}]}


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """Let the hanging end with the test."""
    toy_model.Hanging.release.clear()
    yield
    toy_model.Hanging.release.set()


def models(service: FakeService, behaviour: str) -> tuple[Toy, Toy]:
    old, new = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2, behaviour=behaviour)
    service.add(old)
    service.add(new)
    return old, new


def served(agent: Agent) -> str:
    candidate = agent.supervisor.host.active("toy")
    return candidate.installed.ref if candidate else ""


async def test_an_inference_that_never_returns_in_the_trial_reverts_and_ends_the_process(
    tmp_path: Path, service: FakeService
) -> None:
    old, new = models(service, "hang")
    async with running(tmp_path, service, config=HASTY) as agent:
        await agent.install(service.envelope(service.wish(old)), 1)
        agent.offer(service.envelope(service.wish(new)))
        await agent.until(lambda: served(agent) == "toy@2.0.0", "the new model is on trial")
        stuck = asyncio.create_task(asyncio.to_thread(answers, agent))
        await agent.until(lambda: agent.now.gen == 2 and agent.now.step.terminal, "the trial ends")
        assert (agent.now.step, agent.codes[-1]) == (DeviceStep.REVERTED, "trial_hang")
        assert answers(agent) == [0, 1, 2], "the old model answers while the thread still hangs"
        assert not stuck.done()
        await agent.until(lambda: agent.supervisor.wedged, "the agent wants a fresh process")
        toy_model.Hanging.release.set()
        await stuck


async def test_a_trial_is_not_committed_while_its_only_inference_hangs(
    tmp_path: Path, service: FakeService
) -> None:
    old, new = models(service, "hang")
    async with running(tmp_path, service, config=HASTY) as agent:
        await agent.install(service.envelope(service.wish(old)), 1)
        agent.offer(service.envelope(service.wish(new, trial_seconds=0.1)))
        await agent.until(lambda: served(agent) == "toy@2.0.0", "the new model is on trial")
        stuck = asyncio.create_task(asyncio.to_thread(answers, agent))
        await agent.until(lambda: agent.now.gen == 2 and agent.now.step.terminal, "the trial ends")
        assert agent.now.step is DeviceStep.REVERTED
        toy_model.Hanging.release.set()
        await stuck


async def test_a_model_that_hangs_in_its_probes_never_serves(tmp_path: Path, service: FakeService) -> None:
    old, new = models(service, "hang early")
    async with running(tmp_path, service, config=HASTY) as agent:
        await agent.install(service.envelope(service.wish(old)), 1)
        report = await agent.install(service.envelope(service.wish(new)), 2)
        assert (report.step, agent.codes[-1]) == (DeviceStep.FAILED, "probe_hang")
        assert answers(agent) == [0, 1, 2]
        toy_model.Hanging.release.set()


def test_a_model_on_trial_is_never_computed_on_the_event_loop(tmp_path: Path, service: FakeService) -> None:
    async def story() -> None:
        good, _ = models(service, "")
        async with running(tmp_path, service) as agent:
            agent.offer(service.envelope(service.wish(good, trial_seconds=0.5)))
            host = agent.supervisor.host
            await agent.until(lambda: served(agent) == "toy@1.0.0", "trial")
            for _ in range(50):
                answers(agent)
            candidate = host.active("toy")
            assert candidate is not None
            assert candidate.quick
            assert not host.is_quick("toy")
            await agent.until(lambda: agent.now.step is DeviceStep.COMMITTED, "commit")
            assert host.is_quick("toy")

    asyncio.run(story())


# -- the process itself


class Process:
    """An agent in a process of its own, told what to run by polling."""

    def __init__(self, folder: Path, service: FakeService) -> None:
        self.home, _ = make_home(folder, service)
        self.home.config.write_text(
            "[telemetry]\nseconds = 0.2\n[mqtt]\nfirst_poll_seconds = 0.1\npoll_seconds = 0.2\n"
            "[limits]\nhang_seconds = 1.0\n"
        )
        self.child = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.agent.toy_agent", str(self.home.path)]
        self.child = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE)
        return self.child

    def reported(self) -> dict[str, Any]:
        """The last report, from the journal."""
        journal = Journal(self.home.state / "agent.db")
        text = journal.get("reported", "{}")
        journal.close()
        found: dict[str, Any] = json.loads(text)
        return found

    def boot(self) -> str:
        """Which life of the agent writes its account now; empty when there is none."""
        try:
            return str(json.loads(self.home.live.read_text())["boot_id"])
        except FileNotFoundError:
            return ""

    def until(self, fine: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not fine():
            assert time.monotonic() < end, f"{what}: {self.reported()}"
            time.sleep(0.05)

    def until_step(self, gen: int, step: str) -> dict[str, Any]:
        def there() -> bool:
            found = self.reported()
            return (found.get("gen"), found.get("step")) == (gen, step)

        self.until(there, f"gen {gen} {step}")
        return self.reported()

    def ask(self, seconds: float = 5.0) -> str:
        """The version that answers one request."""
        place = json.loads((self.home.state / "http.json").read_text())
        request = urllib.request.Request(
            place["url"] + "/v2/models/toy/infer",
            json.dumps(INPUTS).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return str(json.loads(answer.read())["model_version"])

    def answers(self, version: str) -> bool:
        try:
            return self.ask() == version
        except (OSError, ValueError, EdgekitError):
            return False

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
        self.child.communicate(timeout=20)


@pytest.fixture
def process(tmp_path: Path, service: FakeService) -> Iterator[Process]:
    made = Process(tmp_path / "home", service)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.slow
def test_the_agent_starts_itself_anew_to_be_rid_of_a_hanging_thread(
    process: Process, service: FakeService
) -> None:
    old, new = models(service, "hang")
    service.desired = service.envelope(service.wish(old))
    process.until_step(1, "committed")
    service.desired = service.envelope(service.wish(new, trial_seconds=20.0))
    process.until_step(2, "trial")
    with pytest.raises(OSError, match=r"timed out|closed|reset"):
        process.ask(0.5)
    report = process.until_step(2, "reverted")
    assert report["reason"]["code"] == "trial_hang"
    process.until(lambda: process.boot() not in ("", report["boot_id"]), "a fresh life of the same process")
    assert process.child.poll() is None, "under the same process id, so that nobody has to start it"
    process.until(lambda: process.answers("1.0.0"), "the old model answers")
    process.child.terminate()
    assert process.child.wait(20) == 0


@pytest.mark.slow
def test_a_model_that_freezes_the_whole_process_ends_it_and_boot_recovery_reverts(
    process: Process, service: FakeService
) -> None:
    old, new = models(service, "freeze")
    service.desired = service.envelope(service.wish(old))
    process.until_step(1, "committed")
    service.desired = service.envelope(service.wish(new, trial_seconds=20.0))
    process.until_step(2, "trial")
    with pytest.raises(OSError, match=r"timed out|closed|reset"):
        process.ask(0.5)
    assert process.child.wait(20) == 1
    assert process.child.stderr is not None
    assert b"Timeout" in process.child.stderr.read(), "where it stood still is in the log"
    process.child.communicate()
    process.start()
    report = process.until_step(2, "reverted")
    assert report["reason"]["code"] == "restarted_in_trial"
    process.until(lambda: process.answers("1.0.0"), "the old model answers")
