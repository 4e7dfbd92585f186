"""A broker as a child process: started, watched, restarted with backoff, reloaded, stopped.

The child dies with the service (parent-death signal) so that nothing is left running; one that
survived nevertheless is found by its pid file and ended before a new one starts. The child's log is
read line by line, because a reload is confirmed only there.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.files import atomic_write
from edgekit_fleet.errors import BrokerError

RELOADED = "Reloading config"
_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a broker is started and where it then listens."""

    kind: str
    command: tuple[str, ...]
    host: str
    port: int
    pid_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class BrokerChild:
    """Runs one broker until `stop`.

    Args:
        launch: what to start.
        ready_seconds: time until it must accept connections.
        on_restart: told after each restart, with the number of restarts so far.
    """

    def __init__(
        self, launch: Launch, *, ready_seconds: float = 15.0, on_restart: Callable[[int], None] | None = None
    ) -> None:
        self.launch = launch
        self._ready_seconds = ready_seconds
        self._on_restart = on_restart
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=50)
        self._changed = threading.Condition()
        self._reloads = 0
        self._reload_lock = threading.Lock()
        self._stopping = threading.Event()
        self._first: threading.Event = threading.Event()
        self._failure: BrokerError | None = None
        self._watcher: threading.Thread | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running child, None when there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the child and wait until it accepts connections.

        Raises:
            BrokerError: port taken, program broken, or not ready in time; says what the child printed.
        """
        end_survivor(self.launch.pid_file, self.launch.command)
        demand_free_port(self.launch.host, self.launch.port)
        # The watcher starts the child: the parent-death signal is tied to the thread that forks.
        self._watcher = threading.Thread(target=self._watch, name="broker-watch", daemon=True)
        self._watcher.start()
        self._first.wait()
        if self._failure is not None:
            raise self._failure

    def reload(self, seconds: float = 5.0) -> bool:
        """Make the child read password file and ACL again; True when it said that it has."""
        with self._reload_lock:
            process = self._process
            if process is None or process.poll() is not None:
                return False
            with self._changed:
                before = self._reloads
                process.send_signal(signal.SIGHUP)
                return self._changed.wait_for(lambda: self._reloads > before, timeout=seconds)

    def stop(self) -> None:
        """End the child; it saves its state."""
        self._stopping.set()
        process = self._process
        if process is not None:
            _end(process)
        if self._watcher is not None:
            self._watcher.join(timeout=10)
        self.launch.pid_file.unlink(missing_ok=True)

    def _watch(self) -> None:
        try:
            self._spawn()
        except BrokerError as error:
            self._failure = error
            return
        finally:
            self._first.set()
        delay = 0.5
        while not self._stopping.is_set():
            began = time.monotonic()
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.is_set():
                return
            delay = 0.5 if time.monotonic() - began > 60 else min(delay * 2, 15.0)
            _log.warning("the broker ended with code %s; starting it again in %.1f s", code, delay)
            if self._stopping.wait(delay):
                return
            self._respawn()

    def _respawn(self) -> None:
        try:
            demand_free_port(self.launch.host, self.launch.port)
            self._spawn()
        except BrokerError as error:
            _log.error("%s", error)
            return
        self.restarts += 1
        if self._on_restart is not None:
            self._on_restart(self.restarts)

    def _spawn(self) -> None:
        try:
            process = subprocess.Popen(
                self.launch.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, **self.launch.environment},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise BrokerError(
                f"cannot start the broker: {error.strerror}", where=self.launch.command[0]
            ) from error
        self._process = process
        atomic_write(self.launch.pid_file, f"{process.pid}\n".encode())
        threading.Thread(target=self._read, args=(process,), name="broker-log", daemon=True).start()
        self._await_ready(process)
        if self._stopping.is_set():
            _end(process)

    def _await_ready(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + self._ready_seconds
        while process.poll() is None and time.monotonic() < deadline:
            if accepts(self.launch.host, self.launch.port):
                return
            time.sleep(0.03)
        _end(process)
        time.sleep(0.05)  # let the log reader see the last words
        words = " | ".join(self._lines) or "nothing"
        raise BrokerError(
            f"the {self.launch.kind} broker did not come up; it printed: {words[-600:]}",
            where=f"{self.launch.host}:{self.launch.port}",
            code="broker_failed",
        )

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                text = line.strip()
                self._lines.append(text)
                _log.debug("broker: %s", text)
                if RELOADED in text:
                    with self._changed:
                        self._reloads += 1
                        self._changed.notify_all()


def accepts(host: str, port: int) -> bool:
    """Whether somebody accepts TCP connections there."""
    try:
        with socket.create_connection((_reachable(host), port), timeout=0.5):
            return True
    except OSError:
        return False


def demand_free_port(host: str, port: int) -> None:
    """Check that the broker's port is free.

    Raises:
        BrokerError: it is not (code ``port_taken``), or the host is no address of this machine.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise BrokerError(
            f"the broker's port cannot be used: {error.strerror}",
            where=f"{host}:{port}",
            remedy="end what listens there, or set broker.port in fleet.toml",
            code="port_taken",
        ) from error


def end_survivor(pid_file: Path, command: Sequence[str]) -> None:
    """End a child of an earlier service that still runs; other processes are left alone."""
    try:
        pid = int(pid_file.read_text())
        running = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except (OSError, ValueError):
        return
    if [part.decode(errors="replace") for part in running] != list(command):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


def _reachable(host: str) -> str:
    """The loopback address when `host` means every interface."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else host


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
