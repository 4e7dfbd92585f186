"""HTTP as the agent uses it: `http.client`, with caps, time-outs and no redirect to another host.

Standard library only, because the resident process must stay small. Knows nothing of what it fetches;
resuming downloads is `edgekit_agent.download`'s business.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

from edgekit_agent.errors import ConfigError, TransferError

USER_AGENT = "edgekit-agent/0.1"
_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Service:
    """Where the service is and how this device says who it is."""

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 20.0

    def address(self, path: str) -> str:
        """Absolute URL of `path` (which may be absolute already)."""
        return path if "://" in path else self.url.rstrip("/") + "/" + path.lstrip("/")


def check_url(url: str) -> SplitResult:
    """Take a service URL apart.

    Raises:
        ConfigError: not ``http://host[:port]`` or ``https://…``.
    """
    parts = urlsplit(url)
    try:
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"{url!r} is not an http(s) address", where="url", remedy="http://HOST:PORT")
    return parts


@contextlib.contextmanager
def opened(
    service: Service,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send a request, yield the answer with its body unread; follows redirects on the same host only.

    Raises:
        TransferError: no connection, time-out, or a redirect that leaves the host.
    """
    url = service.address(path)
    for _ in range(_MAX_REDIRECTS + 1):
        connection = _connect(url, service.timeout)
        with contextlib.closing(connection):
            response = _send(connection, service, url, method, body, headers or {})
            location = response.getheader("Location")
            if response.status not in _REDIRECTS or location is None:
                try:
                    yield response
                except (OSError, http.client.HTTPException) as error:
                    raise TransferError(f"the answer broke off: {error}", where=url) from error
                return
            url = _same_host(url, location)
    raise TransferError("too many redirects", where=url, code="redirect_refused")


def request(
    service: Service,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    limit: int = 4 << 20,
    deadline: float = 60.0,
) -> Answer:
    """One exchange with a body of at most `limit` bytes, over within `deadline` seconds.

    Any status is returned, none raises.

    Raises:
        TransferError: no answer, too large, too slow.
    """
    with opened(service, path, method=method, body=body, headers=headers) as response:
        data = b"".join(read_capped(response, limit=limit, deadline=deadline, where=service.address(path)))
        pairs = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=pairs, body=data)


def read_capped(
    response: http.client.HTTPResponse, *, limit: int, deadline: float, where: str
) -> Iterator[bytes]:
    """The body in pieces, never more than `limit` bytes nor longer than `deadline` seconds.

    Raises:
        TransferError: more bytes, or slower.
    """
    end, received = time.monotonic() + deadline, 0
    while piece := response.read1(_CHUNK):
        received += len(piece)
        if received > limit:
            raise TransferError(f"more than {limit} bytes", where=where, code="too_large")
        if time.monotonic() > end:
            raise TransferError(f"not finished after {deadline:.0f} s", where=where, code="too_slow")
        yield piece


def retry_after(headers: Mapping[str, str] | http.client.HTTPMessage) -> float | None:
    """Seconds of a ``Retry-After`` header, None when absent or a date; at most an hour."""
    text = headers.get("Retry-After") or headers.get("retry-after") or ""
    return min(float(text), 3600.0) if text.isdigit() else None


def _connect(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = check_url(url)
    assert parts.hostname is not None
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)


def _send(
    connection: http.client.HTTPConnection,
    service: Service,
    url: str,
    method: str,
    body: bytes | None,
    headers: Mapping[str, str],
) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
    if service.username:
        pair = base64.b64encode(f"{service.username}:{service.password}".encode()).decode()
        sent["Authorization"] = f"Basic {pair}"
    try:
        connection.request(method, target, body=body, headers=sent)
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"no answer: {str(error) or type(error).__name__}", where=url) from error


def _same_host(url: str, location: str) -> str:
    target = urljoin(url, location)
    if urlsplit(target)[:2] != urlsplit(url)[:2]:
        raise TransferError(f"redirect to another host refused: {target}", where=url, code="redirect_refused")
    return target
