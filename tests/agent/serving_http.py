"""An inference server on a loop of its own, and a plain client, for the tests."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.http import InferenceServer
from tests.agent.models import samples

SLOT = "animals"
INFER = f"/v2/models/{SLOT}/infer"


@contextmanager
def serving(host: ModelHost, **options: Any) -> Iterator[InferenceServer]:
    """Run a server in a thread until the block ends."""
    loop = asyncio.new_event_loop()
    server = InferenceServer(host, **options)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def call(
    server: InferenceServer,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    """One request on a connection of its own: status, JSON (or text), headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        data = answer.read()
        kind = answer.headers.get_content_type()
        return (
            answer.status,
            json.loads(data) if data and kind == "application/json" else data.decode(),
            dict(answer.headers),
        )
    finally:
        connection.close()


def body_of(n: int = 1, **changes: Any) -> bytes:
    """An inference request of `n` samples."""
    tensor = {"name": "x", "shape": [n, 4], "datatype": "FP32", "data": samples(n).ravel().tolist()}
    tensor.update(changes.pop("tensor", {}))
    return json.dumps({"inputs": [tensor], **changes}).encode()


def raw(server: InferenceServer, data: bytes, *, timeout: float = 10) -> bytes:
    """Send bytes, return everything until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as client:
        client.sendall(data)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Everything until the other side closes."""
    pieces = []
    while True:
        try:
            piece = client.recv(65_536)
        except ConnectionResetError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)
