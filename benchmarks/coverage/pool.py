"""Worker processes for the tests: one that dies or hangs loses one test."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from benchmarks.peers import peer_environment

_SECONDS = 60.0


def run_all(target: str, names: list[str], workers: int) -> dict[str, dict[str, Any]]:
    """Every test's outcome by name; a test whose process dies is ``crashed``."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for name in names:
        waiting.put(name)
    found: dict[str, dict[str, Any]] = {}

    def serve() -> None:
        worker = _Worker(target)
        while True:
            try:
                name = waiting.get_nowait()
            except Empty:
                worker.close()
                return
            found[name] = worker.ask(name)
            if found[name]["outcome"] == "crashed":
                worker.close()
                worker = _Worker(target)

    with ThreadPoolExecutor(workers) as executor:
        for future in [executor.submit(serve) for _ in range(workers)]:
            future.result()
    return found


class _Worker:
    def __init__(self, target: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.coverage.worker", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **peer_environment(target)},
            bufsize=0,  # a buffered reader would hide a second line from select
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def ask(self, name: str) -> dict[str, Any]:
        """The outcome of one test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n".encode())
        answer: dict[str, Any] = {"ceiling": False}
        while "outcome" not in answer:
            ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
            line = self._process.stdout.readline() if ready else b""
            if not line:
                how = f"exit code {self._process.wait()}" if ready else "no answer in time"
                return {**answer, "outcome": "crashed", "code": "crashed", "detail": how}
            answer |= json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
