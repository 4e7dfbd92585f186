"""What every test shares: loopback only, real services demanded in CI, the model zoo, a frozen clock."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

# Shared machines are slow at times: a slow example is no failure.
settings.register_profile("edgekit", deadline=None)
settings.load_profile("edgekit")

# A shell that starts a job in the background has it ignore Ctrl-C, and children inherit that: tests that
# interrupt a child would wait for ever. A handler of ours is not inherited; children get the default again.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
_SERVICES = {"mosquitto": ("mosquitto",), "chromium": ("chromium", "chromium-browser", "google-chrome")}
_SBIN = ("/usr/sbin", "/usr/local/sbin")


class NetworkBlockedError(AssertionError):
    """A test tried to reach an address that is not this machine's loopback."""


def in_ci() -> bool:
    """Whether a missing service is a failure (CI=true) rather than a skip."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def require_service(name: str) -> Path:
    """The program of a real service a test needs; skips with a reason where it is missing, fails in CI."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    for program in _SERVICES.get(name, (name,)):
        if found := shutil.which(program, path=places):
            return Path(found)
    missing(f"{name} is not installed (apt-get install {name})")


def missing(reason: str) -> NoReturn:
    """Skip for want of something outside; with CI=true, where everything must be there, fail."""
    if in_ci():
        pytest.fail(f"{reason}; with CI=true nothing may be missing")
    pytest.skip(reason)


def require_package(name: str, extra: str) -> None:
    """Skip where a package is not installed, without importing it.

    coremltools would find TensorFlow or PyTorch in this process, and then import both.
    """
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: it comes with the extra [{extra}]", allow_module_level=True)


def is_loopback(address: Any) -> bool:
    """Whether a socket address stays on this machine: loopback, a Unix path, an unspecified bind."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    if host in ("localhost", b"localhost") or address[:2] == ("", 0):  # ("", 0): a client's own end, any
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0] if isinstance(host, str) else host).is_loopback
    except ValueError:
        return False


def _guarded(name: str) -> Callable[..., Any]:
    original = getattr(socket.socket, name)

    def call(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address):
            raise NetworkBlockedError(f"{name} to {address!r}: tests stay on loopback")
        return original(self, *arguments)

    return call


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """Refuse every connect, bind, send and name look-up that would leave the loopback interface."""
    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host is not None and not is_loopback((host,)):
            raise NetworkBlockedError(f"name look-up of {host!r}: tests stay on loopback")
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "bind", "sendto"):
            patch.setattr(socket.socket, name, _guarded(name))
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of trained models for tests (model zoo beside the checkout); skips where it is absent."""
    chosen = os.environ.get("EDGEKIT_SHARED")
    folder = (Path(chosen) if chosen else REPOSITORY.parent / "shared") / "models"
    if not folder.is_dir():
        pytest.skip(f"no model zoo at {folder} (set EDGEKIT_SHARED to the folder that holds models/)")
    return folder


@dataclass(kw_only=True)
class FrozenClock:
    """A `Clock` that moves only when told: `wall` in seconds since the epoch, `elapsed` monotonic seconds."""

    wall: float = 1_790_000_000.0
    elapsed: float = 1_000.0

    def now(self) -> float:
        """Seconds since the epoch, as set."""
        return self.wall

    def monotonic(self) -> float:
        """Monotonic seconds, as advanced."""
        return self.elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall += seconds
        self.elapsed += seconds

    def jump(self, wall: float) -> None:
        """Set the wall clock only, as NTP or a dead battery does."""
        self.wall = wall


@pytest.fixture
def clock() -> FrozenClock:
    """A frozen clock, time given by the test."""
    return FrozenClock()
