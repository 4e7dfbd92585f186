"""HTTP/1.1 for a small server: one asyncio protocol a connection, with every bound it needs.

Knows nothing of what is served. httptools parses; here are the limits (header size, body size, time to
send a request, idle time, unread answers, connections), keep-alive, pipelining (answers in order,
one request of a connection at work at a time), ``Expect: 100-continue`` and half-closing after a
refusal, so that the client gets to read it.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus

import httptools

JSON = "application/json"
_LINGER_SECONDS = 2.0
_PIPELINE_HIGH = 16


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of the server; sizes in bytes, times in seconds."""

    header_bytes: int = 16 << 10
    headers: int = 64
    url_bytes: int = 4 << 10
    body_bytes: int = 16 << 20
    request_seconds: float = 30.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    connections: int = 128


@dataclass(frozen=True, kw_only=True)
class Request:
    """A whole request. Header names are in lower case; of a repeated one the last counts."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(status: int, value: Mapping[str, object], **headers: str) -> Response:
    """A JSON answer; underscores in header names become hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(status=status, body=json.dumps(value).encode(), headers=named)


def refusal(status: int, message: str, **headers: str) -> Response:
    """An error as the Open Inference Protocol has it: ``{"error": message}``."""
    return answer(status, {"error": message}, **headers)


Reply = Callable[[Response], None]
Handler = Callable[[Request, Reply], None]
"""Takes a request and calls its second argument exactly once, on the loop, at once or later."""


class _State(Enum):
    IDLE = "idle"
    RECEIVING = "receiving"
    CLOSING = "closing"


class Connection(asyncio.Protocol):
    """One client. All of it runs on the event loop."""

    def __init__(
        self,
        handler: Handler,
        bounds: Bounds,
        members: set[Connection],
        count: Callable[[int], None],
    ) -> None:
        self._handler, self._bounds, self._members, self._count = handler, bounds, members, count
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Request | Response, bool]] = deque()
        self._state = _State.IDLE
        self._since = self._loop.time()
        self._busy = False
        self._writable = True
        self._ended = False
        self._blocked_since = 0.0
        self._begin()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._members.add(self)
        if len(self._members) > self._bounds.connections:
            self._refuse(503, "too many connections")

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; an answer under way is thrown away."""
        self._members.discard(self)
        self._state = _State.CLOSING
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._state is _State.CLOSING:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        except httptools.HttpParserError as error:
            self._refuse(400, f"not HTTP/1.1: {error}")
        if len(self._waiting) >= _PIPELINE_HIGH and not self._transport.is_closing():
            self._transport.pause_reading()
        self._next()

    def eof_received(self) -> bool:
        """The client ended its side; it still gets the answers it waits for."""
        self._ended = True
        self._state, self._since = _State.CLOSING, self._loop.time()
        return self._busy or bool(self._waiting)

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._writable, self._blocked_since = False, self._loop.time()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._next()

    # httptools' side

    def _begin(self) -> None:
        self._target, self._headers, self._size = b"", dict[str, str](), 0
        self._fields = 0
        self._body: list[bytes] = []
        self._received = 0

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._state is not _State.CLOSING:
            self._begin()
            self._state, self._since = _State.RECEIVING, self._loop.time()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url
        if len(self._target) > self._bounds.url_bytes:
            self._refuse(414, f"at most {self._bounds.url_bytes} bytes of address are allowed")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        self._size += len(name) + len(value)
        self._fields += 1
        if self._size > self._bounds.header_bytes or self._fields > self._bounds.headers:
            self._refuse(431, "too many or too large header fields")
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """All header fields are here."""
        if self._state is _State.CLOSING:
            return
        announced = self._headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > self._bounds.body_bytes:
            self._too_large()
        elif self._headers.get("expect", "").lower() == "100-continue" and not self._busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._received += len(body)
        if self._received > self._bounds.body_bytes:
            self._too_large()
        elif self._state is not _State.CLOSING:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._state is _State.CLOSING:
            return
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            body=b"".join(self._body),
        )
        self._body = []
        self._state, self._since = _State.IDLE, self._loop.time()
        self._waiting.append((request, self._parser.should_keep_alive()))

    # our side

    @property
    def quiet(self) -> bool:
        """Whether nothing is being received, computed or waiting."""
        return not self._busy and not self._waiting and self._state is not _State.RECEIVING

    def close(self) -> None:
        """Close now, or after the answer that is under way."""
        self._state, self._since = _State.CLOSING, self._loop.time()
        self._waiting.clear()
        if not self._busy:
            self._transport.close()

    def check(self, now: float) -> None:
        """Enforce the times; called about once a second."""
        bounds = self._bounds
        if not self._writable and now - self._blocked_since > bounds.write_seconds:
            self._transport.abort()
        elif self._state is _State.CLOSING:
            if not self._busy and now - self._since > _LINGER_SECONDS:
                self._transport.close()
        elif self._state is _State.RECEIVING and now - self._since > bounds.request_seconds:
            self._refuse(408, f"the request was not complete after {bounds.request_seconds:.0f} s")
            self._next()
        elif self.quiet and now - self._since > bounds.idle_seconds:
            self._transport.close()

    def _ignore_upgrade(self) -> None:
        """Answer the request as it is and close: what follows it is no HTTP/1.1."""
        if self._waiting:
            self._waiting[-1] = (self._waiting[-1][0], False)
            self._state, self._since = _State.CLOSING, self._loop.time()

    def _too_large(self) -> None:
        self._refuse(413, f"at most {self._bounds.body_bytes} bytes of body are allowed")

    def _refuse(self, status: int, message: str) -> None:
        """Answer, after what is waiting before it, and take nothing more."""
        if self._state is not _State.CLOSING:
            self._state, self._since, self._body = _State.CLOSING, self._loop.time(), []
            self._waiting.append((refusal(status, message), False))
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Begin with the next waiting request, if none is at work and the client reads."""
        while self._waiting and not self._busy and self._writable:
            item, keep = self._waiting.popleft()
            if isinstance(item, Response):
                self._write(item, keep=keep, head=False)
                continue
            self._busy = True
            self._handler(item, self._replier(item.method == "HEAD", keep))
        if len(self._waiting) < _PIPELINE_HIGH // 2 and not self._transport.is_closing():
            self._transport.resume_reading()

    def _replier(self, head: bool, keep: bool) -> Reply:
        def reply(response: Response) -> None:
            self._busy = False
            if self._state is _State.IDLE:
                self._since = self._loop.time()
            if not self._transport.is_closing():
                self._write(response, keep=keep, head=head)
                if self._waiting:
                    self._loop.call_soon(self._next)

        return reply

    def _write(self, response: Response, *, keep: bool, head: bool) -> None:
        last = not keep or (self._state is _State.CLOSING and not self._waiting)
        self._count(response.status)
        lines = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            *(f"{name}: {text}" for name, text in response.headers.items()),
            *(("Connection: close",) if last else ()),
        ]
        text = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self._transport.write(text if head else text + response.body)
        if last:
            self._finish()

    def _finish(self) -> None:
        """Say goodbye: end our side, let the client read, drop what it still sends."""
        self._state, self._since = _State.CLOSING, self._loop.time()
        self._waiting.clear()
        if self._transport.can_write_eof() and not self._ended:
            self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._transport.close()


__all__ = ["Bounds", "Connection", "Handler", "Reply", "Request", "Response", "answer", "refusal"]
