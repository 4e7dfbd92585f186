"""Worker processes seen from the engine: started when needed, kept warm, killed at their limits.

A crash, a time-out or too much memory ends that worker only and becomes `ToolFailed`; the next task
of the kind gets a fresh one. At most one TensorFlow and one coremltools worker live at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import errors as core_errors
from edgekit.errors import EdgekitError
from edgekit_converters import errors
from edgekit_converters.errors import ToolFailed

_TICK = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one task may take: seconds, and MiB of resident memory of its process."""

    seconds: float = 600.0
    memory_mb: int = 8192


class Pool:
    """Workers by kind. Threads may call `run` at the same time; `close` ends every process."""

    SIZE = {"tensorflow": 1, "torch": 1, "coremltools": 1, "user": 1, "plain": 2}  # noqa: RUF012  # never changed

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._slots = {kind: threading.Semaphore(size) for kind, size in self.SIZE.items()}
        self._idle: dict[str, list[_Worker]] = {kind: [] for kind in self.SIZE}
        self._alive: set[_Worker] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, kind: str, task: str, args: Mapping[str, Any]) -> Any:
        """Run `task` in a worker of `kind` and return its answer.

        Raises:
            EdgekitError: what the task raised, of its own class.
            ToolFailed: the process died or was killed at a limit.
        """
        with self._slots[kind]:
            worker = self._take(kind)
            try:
                answer = worker.ask(task, args, self.limits)
            except ToolFailed:
                self._forget(worker)
                raise
            except BaseException:
                self._forget(worker)
                raise
            with self._lock:
                self._idle[kind].append(worker)
        if "error" in answer:
            raise _raised(answer["error"])
        return answer["ok"]

    def warm(self, kind: str, targets: Sequence[str]) -> None:
        """Have one more worker of `kind` import what `targets` stand on, while nothing needs it yet."""
        with self._lock:
            if len([item for item in self._alive if item.kind == kind]) >= self.SIZE[kind]:
                return

        def imports() -> None:
            # Whoever needs it is told; and the pool may be closed while this one still imports.
            with contextlib.suppress(EdgekitError, OSError, ValueError):
                self.run(kind, "warm", {"targets": list(targets)})

        threading.Thread(target=imports, daemon=True).start()

    def close(self) -> None:
        """End every worker, also busy ones."""
        with self._lock:
            doomed, self._alive = list(self._alive), set()
            self._idle = {kind: [] for kind in self.SIZE}
        for worker in doomed:
            worker.close()

    def _take(self, kind: str) -> _Worker:
        with self._lock:
            if self._idle[kind]:
                return self._idle[kind].pop()
            worker = _Worker(kind)
            self._alive.add(worker)
            return worker

    def _forget(self, worker: _Worker) -> None:
        worker.close()
        with self._lock:
            self._alive.discard(worker)


class _Worker:
    """One process and its two pipes; what it prints goes to a temporary file for error messages."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgekit_converters.engine.worker", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._buffer = b""

    def ask(self, task: str, args: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"task": task, "args": args}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died(task) from error
        deadline = time.monotonic() + limits.seconds
        for line in self._lines():
            if line is not None:
                answer: dict[str, Any] = json.loads(line)
                return answer
            if time.monotonic() > deadline:
                raise ToolFailed(
                    f"{task} took more than {limits.seconds:g} s and was ended", code="tool_timeout"
                )
            used = _resident_mb(self._process.pid)
            if used > limits.memory_mb:
                raise ToolFailed(
                    f"{task} took {used} MiB, more than {limits.memory_mb}, and was ended",
                    remedy="raise --memory-limit if the machine has more",
                    code="tool_out_of_memory",
                )
        raise self._died(task)

    def close(self) -> None:
        """End the process and free its files."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _lines(self) -> Iterator[bytes | None]:
        """Whole lines as they come, None at every tick; ends when the process does."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        while True:
            head, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                yield head
                continue
            ready, _, _ = select.select([handle], [], [], _TICK)
            if not ready:
                yield None
                continue
            piece = os.read(handle, 1 << 16)
            if not piece:
                return
            self._buffer += piece

    def _died(self, task: str) -> ToolFailed:
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        last = said[-1][:300] if said else "it said nothing"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return ToolFailed(f"{task} ended its process ({how}): {last}")


def _raised(facts: Mapping[str, Any]) -> EdgekitError:
    """The error that a worker reported, of the class it had there."""
    name = facts["class"]
    found = getattr(errors, name, None) or getattr(core_errors, name, None) or EdgekitError
    error: EdgekitError = found(
        facts["message"], where=facts.get("where"), remedy=facts.get("remedy"), code=facts["code"]
    )
    return error


def _resident_mb(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not say (then there is no limit)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * _PAGE >> 20
