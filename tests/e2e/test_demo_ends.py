"""`edgekit demo` leaves nothing behind: interrupted, killed, or robbed of a child."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_fleet.demo.processes import program
from tests.e2e.line import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]


def mentioning(folder: Path) -> list[int]:
    """Live processes with `folder` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(int(entry.name))
    return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A demo in the middle of its first act."""
    out = tmp_path / "out"
    words = [*program("edgekit", "edgekit"), "demo", "--fast", "--out", str(out), "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: len(mentioning(out)) >= 3, seconds=40, what="the demo and its trainings")
        yield process, out
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_after_the_demo_was_ended(
    demo: tuple[subprocess.Popen[str], Path], number: int
) -> None:
    process, out = demo
    process.send_signal(number)
    code = process.wait(30)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    until(lambda: not mentioning(out), seconds=10, what="the end of all its processes")


def test_a_child_that_is_killed_fails_the_demo_and_ends_the_rest(
    demo: tuple[subprocess.Popen[str], Path],
) -> None:
    process, out = demo
    victim = next(pid for pid in mentioning(out) if pid != process.pid)
    os.kill(victim, signal.SIGKILL)
    assert process.wait(60) == 1
    until(lambda: not mentioning(out), seconds=10, what="the end of all its processes")
    assert process.stderr is not None
    assert "exit code -9" in process.stderr.read()
