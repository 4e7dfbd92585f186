"""An agent in the test's own process: real supervisor, store, journal and trust child, toy runtime."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.documents import DeviceStep, Document, EnrolAnswer, Event, Reported
from edgekit_agent.config import Config, Home
from edgekit_agent.download import Patience
from edgekit_agent.supervisor import Seams, Supervisor
from tests.simulators.service import FakeService
from tests.simulators.toy_model import DETECTED, FACTS, ToyRuntime

CONFIG = Config(modes=("embedded",), telemetry_seconds=0.2, resend_seconds=1.0, first_poll_seconds=600.0)
PATIENCE = Patience(tries=3, first=0.01, longest=0.05, stall=2.0)


def make_home(folder: Path, service: FakeService) -> tuple[Home, EnrolAnswer]:
    """A home that is enrolled with `service` as ``dev-1``."""
    from edgekit_agent.enrol import request_for

    home = Home(path=folder)
    folder.mkdir(parents=True, exist_ok=True)
    request = request_for(home.key, token=service.token, name="", facts=FACTS)
    answer = service.answer(request)
    home.root.write_bytes(answer.root.encode())
    home.identity.write_bytes(answer.to_bytes())
    return home, answer


@dataclass(kw_only=True)
class Agent:
    """A running agent and what it has published."""

    supervisor: Supervisor
    runtime: ToyRuntime
    published: list[tuple[str, Document]] = field(default_factory=list)

    @property
    def now(self) -> Reported:
        """Its latest report."""
        return self.supervisor.reporter.current

    @property
    def steps(self) -> list[DeviceStep]:
        """Every step it went through, repetitions merged."""
        events = [item for leaf, item in self.published if leaf == "ev"]
        steps = [item.step for item in events if isinstance(item, Event)]
        return [step for index, step in enumerate(steps) if index == 0 or steps[index - 1] is not step]

    @property
    def codes(self) -> list[str]:
        """Codes of all reasons it gave."""
        events = [item for leaf, item in self.published if leaf == "ev"]
        return [item.reason.code for item in events if isinstance(item, Event) and item.reason]

    def offer(self, envelope: bytes) -> None:
        """A desired document arrives."""
        self.supervisor._lifecycle.offer(envelope)

    async def until(self, fine: Callable[[], bool], what: str, *, seconds: float = 20.0) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not fine():
            assert time.monotonic() < end, f"{what}: not after {seconds} s; now {self.now}, {self.codes}"
            await asyncio.sleep(0.01)

    async def install(self, envelope: bytes, gen: int) -> Reported:
        """Offer a document and wait until that gen has ended."""
        self.offer(envelope)
        await self.until(lambda: self.now.gen == gen and self.now.step.terminal, f"gen {gen} ends")
        return self.now

    def telemetry(self) -> list[dict[str, Any]]:
        """What lies in the outbox."""
        import json

        return [json.loads(record.payload) for record in self.supervisor._outbox.pending(1000)]


@asynccontextmanager
async def running(
    folder: Path, service: FakeService, *, config: Config = CONFIG, **seams: Any
) -> AsyncIterator[Agent]:
    """An agent of the home `folder`, enrolled if it was not, running until the block ends."""
    home, identity = make_home(folder, service)
    runtime = ToyRuntime()
    given = {
        "detected": DETECTED,
        "runtimes": {"litert": runtime},
        "built": 0.0,
        "patience": PATIENCE,
        **seams,
    }
    supervisor = Supervisor(home, config, replace(identity, mqtt_port=service.mqtt_port), Seams(**given))
    agent = Agent(supervisor=supervisor, runtime=runtime)
    publish = supervisor._publish

    def record(leaf: str, document: Document) -> bool:
        agent.published.append((leaf, document))
        publish(leaf, document)
        return True

    supervisor.reporter._publish = record
    task = asyncio.create_task(supervisor.run())
    try:
        await asyncio.wait_for(supervisor.started.wait(), 20)
        yield agent
    finally:
        supervisor.stop()
        await task
    assert supervisor.exceptions == 0, "something reached the outermost loop"
