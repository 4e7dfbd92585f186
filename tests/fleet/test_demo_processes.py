"""Children leave nothing running, however their owner or they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.errors import OperationTimeout
from edgekit_fleet.demo.processes import Child, Children, CommandError, group_members, program, shown

SLEEPER = "import time; time.sleep(300)"
# Starts a grandchild that ignores SIGTERM and says both process ids.
PARENT = """
import os, subprocess, sys, time
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
stubborn += "print('up', flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
child.stdout.readline()
print(os.getpid(), child.pid, flush=True)
time.sleep(300)
"""
OWNER = """
import sys, time
from pathlib import Path
from edgekit_fleet.demo.processes import Children
with Children(folder=Path(sys.argv[1])) as children:
    child = children.start("sleeper", [sys.executable, "-c", "import time; time.sleep(300)"])
    print(child.process.pid, flush=True)
    time.sleep(300)
"""


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    with Children(folder=tmp_path / "logs") as found:
        yield found


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process has ended (one that nobody has collected counts as ended)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def family(child: Child) -> tuple[int, int]:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if words := child.tail().split():
            return int(words[0]), int(words[1])
        time.sleep(0.05)
    raise AssertionError("the child said nothing")


def test_leaving_the_block_ends_everything(tmp_path: Path) -> None:
    with Children(folder=tmp_path) as children:
        child = children.start("sleeper", [sys.executable, "-c", SLEEPER])
        assert child.alive
    assert child.process.returncode is not None
    assert child.left_over() == []


def test_a_grandchild_that_ignores_the_request_is_ended_too(children: Children) -> None:
    child = children.start("parent", [sys.executable, "-c", PARENT])
    parent, grandchild = family(child)
    child.stop(1.0)
    assert gone(parent)
    assert gone(grandchild)


def test_what_a_killed_child_started_is_ended_at_the_end(children: Children) -> None:
    child = children.start("parent", [sys.executable, "-c", PARENT])
    _, grandchild = family(child)
    child.kill()
    assert not gone(grandchild, 0.2)
    assert child.left_over() == [grandchild]
    children.stop()
    assert gone(grandchild)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_children_end_when_their_owner_is_killed_or_interrupted(tmp_path: Path, number: int) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout as said:
        pid = int(said.readline())
        owner.send_signal(number)
        owner.wait(10)
    assert gone(pid)


def test_a_command_that_fails_says_what_it_printed(children: Children) -> None:
    with pytest.raises(CommandError, match=r"exit code 7.*broken pipe dream"):
        children.run(
            [sys.executable, "-c", "import sys; sys.exit(print('broken pipe dream') or 7)"], seconds=20
        )


def test_an_expected_exit_code_is_no_failure(children: Children) -> None:
    done = children.run([sys.executable, "-c", "raise SystemExit(3)"], seconds=20, expect=(0, 3))
    assert done.code == 3
    assert done.seconds < 20


def test_a_command_that_hangs_is_ended_with_what_it_started(children: Children, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    code = PARENT.replace(
        "print(os.getpid(), child.pid, flush=True)", f"open({str(note)!r}, 'w').write(str(child.pid))"
    )
    with pytest.raises(OperationTimeout, match="not finished after 2 s"):
        children.run([sys.executable, "-c", code], seconds=2)
    assert gone(int(note.read_text()))


def test_output_that_is_no_json_is_an_error_of_the_command(children: Children) -> None:
    done = children.run([sys.executable, "-c", "print('hello')"], seconds=20)
    with pytest.raises(CommandError, match="printed no JSON"):
        done.json()


def test_members_of_a_group_are_found_and_the_dead_do_not_count(children: Children) -> None:
    child = children.start("sleeper", [sys.executable, "-c", SLEEPER])
    assert group_members(child.process.pid) == [child.process.pid]
    os.kill(child.process.pid, signal.SIGKILL)
    assert gone(child.process.pid)
    assert group_members(child.process.pid) == []


def test_commands_are_shown_as_people_type_them() -> None:
    assert (
        shown(["/usr/bin/edgekit", "release", "sign", "digits@1.0.0"]) == "edgekit release sign digits@1.0.0"
    )
    assert program("no-such-script", "edgekit") == (sys.executable, "-m", "edgekit")
