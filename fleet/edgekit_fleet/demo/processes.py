"""Children that never outlive their owner.

Each child leads a session of its own, so that it can be ended with everything it started, even after
it was killed itself; it gets SIGTERM when its owner dies (see `leash`). Not thread-safe, and children
must be started by the main thread: the parent-death signal is tied to the thread that forks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError, OperationTimeout

LEASH = Path(__file__).with_name("leash.py")
_GRACE = 10.0


class CommandError(EdgekitError):
    """A command of the line failed where it should not, or did not where it should."""

    default_code = "command_failed"


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended; `seconds` is its wall time."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    def json(self) -> dict[str, Any]:
        """Its standard output as one JSON object.

        Raises:
            CommandError: it printed something else.
        """
        try:
            value = json.loads(self.out)
        except ValueError as error:
            raise CommandError(f"printed no JSON: {self.out[:300]!r}", where=shown(self.command)) from error
        if not isinstance(value, dict):
            raise CommandError("printed JSON that is no object", where=shown(self.command))
        return value


@dataclass(kw_only=True)
class Child:
    """A running program and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    command: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def tail(self, characters: int = 2000) -> str:
        """The end of its log."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]
        except OSError:
            return ""

    def left_over(self) -> list[int]:
        """Process ids of what still runs of it and of what it started."""
        return group_members(self.process.pid)

    def signal(self, number: int) -> None:
        """Send a signal to it alone; one that has ended already is fine."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, as a crash would be; what it started is left alone."""
        self.signal(signal.SIGKILL)
        self.process.wait(_GRACE)

    def stop(self, seconds: float = _GRACE) -> int:
        """End it and all it started; returns its exit code. Asks first, insists after `seconds`."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        _end_group(self.process.pid)
        return self.process.wait(_GRACE)


@dataclass(kw_only=True)
class Children:
    """All children of one owner; leaving the block ends them.

    Args:
        folder: where their logs go.
        environment: what they get on top of ours.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    running: list[Child] = field(default_factory=list)

    def __enter__(self) -> Children:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a program; its output is appended to ``<name>.log``."""
        words = tuple(map(str, command))
        log = self.folder / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, **(environment or {})},
                start_new_session=True,
            )
        child = Child(name=name, process=process, log=log, command=words)
        self.running.append(child)
        return child

    def run(
        self,
        command: Sequence[str | Path],
        *,
        seconds: float,
        expect: Sequence[int] | None = (0,),
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command to its end.

        Args:
            seconds: time it may take.
            expect: exit codes that are fine, None for any.

        Raises:
            OperationTimeout: it took longer; it was ended with all it started.
            CommandError: another exit code; says the end of what it printed.
        """
        words = tuple(map(str, command))
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self.environment, **(environment or {})},
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise OperationTimeout(f"not finished after {seconds:g} s", where=shown(words)) from error
        finally:
            _end_group(process.pid)
            process.wait(_GRACE)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        done = Done(
            command=words,
            code=process.returncode,
            out=out.decode("utf-8", "replace"),
            err=err.decode("utf-8", "replace"),
            seconds=time.monotonic() - began,
        )
        if expect is not None and done.code not in expect:
            text = (done.err.strip() or done.out.strip())[-1500:]
            raise CommandError(f"exit code {done.code}: {text}", where=shown(words))
        return done

    def stop(self) -> None:
        """End all, last started first, all asked before the first is waited for."""
        for child in reversed(self.running):
            child.signal(signal.SIGTERM)
        for child in reversed(self.running):
            child.stop()
        self.running.clear()


def program(name: str, module: str) -> tuple[str, ...]:
    """How to call one of our commands: the script beside this Python, else ``python -m module``."""
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return (beside,) if beside else (sys.executable, "-m", module)


def shown(command: Sequence[str]) -> str:
    """A command as a person would type it, long paths shortened."""
    first = Path(command[0]).name
    return " ".join([first, *(word if len(word) < 70 else f"…{word[-40:]}" for word in command[1:])])


def group_members(group: int) -> list[int]:
    """Live processes of a process group; the dead that nobody has collected do not count."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        return [group] if _group_exists(group) else []
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit() and (facts := _stat(entry)) is not None:
            state, process_group = facts
            if process_group == group and state not in "ZX":
                found.append(int(entry.name))
    return found


def _stat(entry: Path) -> tuple[str, int] | None:
    try:
        text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[2])


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end_group(group: int) -> None:
    """End what a child may have left behind in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not group_members(group):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        end = time.monotonic() + 3.0
        while group_members(group) and time.monotonic() < end:
            time.sleep(0.05)
