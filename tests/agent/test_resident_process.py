"""What the resident process must not contain, and how large it may be; seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent.harness import make_home
from tests.conftest import REPOSITORY
from tests.simulators import toy_model
from tests.simulators.service import FakeService

IDLE_MIB = 30.0
_PROGRAM = """
import json, sys
from pathlib import Path
from edgekit_agent.lean import without_tls
without_tls()
import asyncio
from edgekit_agent.config import Config, Home, load_identity
from edgekit_agent.supervisor import Seams, Supervisor
from edgekit_agent.detect import Detected
from edgekit.documents import DeviceFacts

async def main():
    home = Home(path=Path(sys.argv[1]))
    facts = DeviceFacts.from_dict(json.loads(sys.argv[2]))
    seams = Seams(detected=Detected(facts=facts, runtimes={}), runtimes={}, built=0.0)
    supervisor = Supervisor(home, Config(telemetry_seconds=600.0), load_identity(home), seams)
    task = asyncio.create_task(supervisor.run())
    await supervisor.started.wait()
    supervisor._lifecycle.offer(sys.argv[3].encode())
    while not supervisor.reporter.current.step.terminal:
        await asyncio.sleep(0.05)
    print(json.dumps([supervisor.reporter.current.step.value, sorted(sys.modules)]), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    supervisor.stop()
    await task
asyncio.run(main())
"""


@contextmanager
def idle_agent(folder: Path, service: FakeService) -> Iterator[tuple[str, set[str], int]]:
    """An agent that has verified a release and downloaded it, and has no runtime to load it with."""
    make_home(folder, service)
    toy = toy_model.make()
    service.add(toy)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _PROGRAM,
            str(folder),
            toy_model.FACTS.to_bytes().decode(),
            service.envelope(service.wish(toy)).decode(),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    step, modules = json.loads(process.stdout.readline())
    try:
        yield step, set(modules), process.pid
    finally:
        process.stdin.write(b"\n")
        process.stdin.close()
        process.stdout.close()
        assert process.wait(timeout=20) == 0


def rss_mib(pid: int) -> float:
    """Resident set in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Rss")


def test_trust_and_numbers_stay_out_of_the_resident_process(tmp_path: Path, service: FakeService) -> None:
    with idle_agent(tmp_path, service) as (step, modules, _):
        assert step == "failed", "verified and downloaded; no runtime is there to load it"
        top = {name.partition(".")[0] for name in modules}
        assert not top & {"tuf", "securesystemslib", "cryptography", "urllib3", "numpy", "click", "rich"}


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no /proc/PID/smaps_rollup here")
def test_the_idle_agent_stays_small_after_a_verified_release(tmp_path: Path, service: FakeService) -> None:
    with idle_agent(tmp_path, service) as (_, _, pid):
        time.sleep(0.5)
        assert rss_mib(pid) <= IDLE_MIB
