"""One agent process that can kill itself at a chosen write of its journal; started by the power-cut tests.

``python -m tests.agent.power_cut_agent HOME URL CUT WHEN`` where CUT is a device step (or ``none``) and
WHEN is ``before`` or ``after`` the journal has it. Reads envelopes, one a line, from stdin; prints each
event and, at the end of a document, ``done <gen> <step>``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from edgekit.documents import DeviceStep, Document, EnrolAnswer, Event
from edgekit_agent.config import Home, load_identity
from edgekit_agent.journal import Attempt, Journal, SlotRecord
from edgekit_agent.supervisor import Seams, Supervisor
from tests.agent.harness import CONFIG, PATIENCE
from tests.simulators.toy_model import DETECTED, ToyRuntime


class CuttingJournal(Journal):
    """A journal after (or before) one of whose writes the power goes."""

    cut: DeviceStep | None = None
    when: str = "after"

    def _die(self, attempt: Attempt, when: str) -> None:
        if attempt.step is self.cut and when == self.when:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, attempt: Attempt) -> None:
        self._die(attempt, "before")
        super().write(attempt)
        self._die(attempt, "after")

    def settle(self, attempt: Attempt, record: SlotRecord) -> None:
        self._die(attempt, "before")
        super().settle(attempt, record)
        self._die(attempt, "after")


def main() -> None:
    """Run until stdin ends."""
    home, url, cut, when = Home(path=Path(sys.argv[1])), sys.argv[2], sys.argv[3], sys.argv[4]
    CuttingJournal.cut = None if cut == "none" else DeviceStep(cut)
    CuttingJournal.when = when
    asyncio.run(_run(home, replace(load_identity(home), url=url)))


async def _run(home: Home, identity: EnrolAnswer) -> None:
    supervisor = Supervisor(
        home,
        CONFIG,
        identity,
        Seams(
            detected=DETECTED,
            runtimes={"litert": ToyRuntime()},
            make_journal=lambda home: CuttingJournal(home.state / "agent.db"),
            patience=PATIENCE,
            built=0.0,
        ),
    )

    def tell(leaf: str, document: Document) -> bool:
        if isinstance(document, Event):
            code = document.reason.code if document.reason else ""
            print(json.dumps(["event", document.step.value, code]), flush=True)
        return True

    supervisor.reporter._publish = tell
    running = asyncio.create_task(supervisor.run())
    await supervisor.started.wait()
    print(json.dumps(["started", _serving(supervisor), ""]), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        supervisor._lifecycle.offer(line.encode().strip())
        gen = json.loads(line)["signed"]["gen"]
        await _ended(supervisor, gen)
        print(json.dumps(["done", supervisor.reporter.current.step.value, _serving(supervisor)]), flush=True)
    supervisor.stop()
    await running


async def _ended(supervisor: Supervisor, gen: int) -> None:
    while True:
        report = supervisor.reporter.current
        if report.gen >= gen and report.step.terminal:
            return
        await asyncio.sleep(0.01)


def _serving(supervisor: Supervisor) -> str:
    candidate = supervisor.host.active("toy")
    return candidate.installed.ref if candidate else ""


if __name__ == "__main__":
    main()
