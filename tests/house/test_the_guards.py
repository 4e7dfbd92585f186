"""The test-suite's own guards hold: no network beyond loopback, no silent skip in CI."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from importlib.util import find_spec

import pytest

from edgekit.ports import Clock
from tests.conftest import FrozenClock, NetworkBlockedError, in_ci, require_service

PUBLIC = "192.0.2.1"  # TEST-NET-1: documentation only, routed nowhere


def test_a_plain_socket_cannot_leave_loopback() -> None:
    with socket.socket() as endpoint, pytest.raises(NetworkBlockedError):
        endpoint.connect((PUBLIC, 80))


def test_a_datagram_cannot_leave_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint, pytest.raises(NetworkBlockedError):
        endpoint.sendto(b"", (PUBLIC, 53))


def test_a_name_is_not_looked_up() -> None:
    with pytest.raises(NetworkBlockedError):
        urllib.request.urlopen("http://example.org/", timeout=1)


def test_a_server_cannot_listen_on_every_interface() -> None:
    with socket.socket() as endpoint, pytest.raises(NetworkBlockedError):
        endpoint.bind(("0.0.0.0", 0))


async def test_asyncio_cannot_leave_loopback() -> None:
    with pytest.raises(NetworkBlockedError):
        await asyncio.open_connection(PUBLIC, 80)


async def test_asyncio_on_loopback_works() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"here\n")
        assert await reader.readline() == b"here\n"
        writer.close()
        await writer.wait_closed()


def test_a_missing_service_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-service"):
        require_service("no-such-service")


def test_a_missing_service_is_a_skip_with_a_reason_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-service"):
        require_service("no-such-service")


def test_the_frozen_clock_is_a_clock(clock: FrozenClock) -> None:
    as_port: Clock = clock
    before = as_port.now(), as_port.monotonic()
    clock.advance(5)
    clock.jump(0)
    assert as_port.now() == 0
    assert as_port.monotonic() == before[1] + 5


def test_where_nothing_may_be_skipped_every_extra_is_installed() -> None:
    wanted = ("tensorflow", "torch", "onnxscript", "skl2onnx", "tflite_micro", "xgboost", "lightgbm", "cv2")
    missing = [name for name in wanted if find_spec(name) is None]
    if not in_ci():
        pytest.skip(f"only where CI=true; missing here: {', '.join(missing) or 'none'}")
    assert missing == []
