"""A real Mosquitto for tests: loopback, anonymous, a port of its own, killed and started again at will."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True)
class Mosquitto:
    """One broker process; `listener` are further lines about its listener (certificates, …)."""

    program: Path
    folder: Path
    port: int
    listener: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it listens."""
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\n{self.listener}allow_anonymous true\npersistence true\n"
            f"persistence_location {self.folder}/\nautosave_interval 1\nlog_type none\n"
            + ("user root\n" if os.geteuid() == 0 else "")  # else it could not read our certificates
        )
        self.process = subprocess.Popen(
            [self.program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    def stop(self, *, kill: bool = False) -> None:
        """End it, cleanly or not."""
        if self.process is not None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mosquitto(program: Path, folder: Path, *, listener: str = "") -> Iterator[Mosquitto]:
    """A running broker with its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    broker = Mosquitto(program=program, folder=folder, port=free_port(), listener=listener)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
