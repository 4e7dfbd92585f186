"""Fetching one blob: resumed by Range, capped, checked by sha256, patient with a bad network.

`fetch` decides nothing about what is wanted; the caller names size and sha256 from a verified
manifest. A partial file survives every failure except a wrong hash, so that a power cut costs nothing.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.package import File
from edgekit_agent import web
from edgekit_agent.errors import InstallError, TransferError

_CHUNK = 1 << 18
_MEGA = 1 << 20
_NO_USE_TO_RETRY = frozenset({400, 401, 403, 404, 405, 410, 414})

Progress = Callable[[int], None]
"""Told the number of new bytes."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try: `tries` attempts, pauses from `first` doubling to `longest` seconds, each with
    jitter; `stall` is the time without a byte after which a connection is given up."""

    tries: int = 8
    first: float = 1.0
    longest: float = 60.0
    stall: float = 30.0

    def pause(self, attempt: int, asked: float | None, chance: float) -> float:
        """Seconds before attempt `attempt` + 1; `asked` is the service's Retry-After, `chance` 0…1."""
        backoff = min(self.first * float(2**attempt), self.longest)
        return max(asked or 0.0, backoff * (0.5 + 0.5 * chance))


class Downloader:
    """Downloads blobs of one service.

    Args:
        service: where ``/blobs/sha256/<hex>`` is.
        limit: largest blob in bytes.
        free: bytes of disk that must stay free.
        patience: when to give up.
        sleep: waits the given seconds, or less when `stop` is set.
    """

    def __init__(
        self,
        service: web.Service,
        *,
        limit: int,
        free: int = 0,
        patience: Patience | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._service = replace(service, timeout=self._patience.stall)
        self._limit, self._free, self._sleep = limit, free, sleep

    def fetch(
        self, item: File, partial: Path, *, stop: threading.Event, progress: Progress = lambda n: None
    ) -> Path:
        """Bring the bytes of `item` into the file `partial`, whole and checked; returns it.

        Raises:
            InstallError: ``too_large``, ``disk_full``, ``hash_mismatch``, ``blob_missing``, ``cancelled``
                or ``unreachable`` after the last try.
        """
        if item.bytes > self._limit:
            raise InstallError(
                f"{item.bytes} bytes, at most {self._limit} allowed", code="too_large", where=item.path
            )
        attempt = 0
        while True:
            had = _size(partial)
            try:
                self._continue(item, partial, stop, progress)
                return partial
            except TransferError as error:
                if error.status in _NO_USE_TO_RETRY:
                    raise InstallError(str(error), code="blob_missing", where=item.path) from error
                attempt = 0 if _size(partial) > had else attempt + 1
                if attempt >= self._patience.tries:
                    raise InstallError(
                        str(error), code="unreachable", retryable=True, where=item.path
                    ) from error
                self._wait(self._patience.pause(attempt, error.retry_after, random.random()), stop)

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif stop.wait(seconds):
            raise _cancelled()

    def _continue(self, item: File, partial: Path, stop: threading.Event, progress: Progress) -> None:
        """One connection's worth; returns only when the file is whole and right."""
        have = _size(partial)
        if have > item.bytes:
            partial.unlink()
            have = 0
        self._check_space(partial, item.bytes - have)
        if have < item.bytes:
            self._receive(item, partial, have, stop, progress)
        if _hash(partial) != item.sha256:
            partial.unlink(missing_ok=True)
            raise InstallError(
                "what came is not what the manifest names", code="hash_mismatch", where=item.path
            )

    def _receive(
        self, item: File, partial: Path, have: int, stop: threading.Event, progress: Progress
    ) -> None:
        headers = {"Range": f"bytes={have}-"} if have else {}
        path = f"/blobs/sha256/{item.sha256}"
        with web.opened(self._service, path, headers=headers) as response:
            if response.status not in (200, 206):
                raise TransferError(
                    f"HTTP {response.status}",
                    where=path,
                    status=response.status,
                    retry_after=web.retry_after(response.headers),
                )
            if response.status == 200:
                have = 0
            elif _range_start(response.headers) != have:
                raise TransferError("the answer is another range than asked for", where=path)
            pieces = _pieces(response, item.bytes - have, path, stop)
            try:
                _append(partial, have, pieces, progress)
            except OSError as error:
                raise _disk(error, partial) from error

    def _check_space(self, partial: Path, wanted: int) -> None:
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(partial.parent).free
        except OSError as error:
            raise _disk(error, partial) from error
        if free < wanted + self._free:
            raise InstallError(
                f"{wanted // _MEGA + 1} MB needed and {self._free // _MEGA} MB to spare, "
                f"{free // _MEGA} MB are free",
                code="disk_full",
                retryable=True,
                where=str(partial.parent),
            )


def _pieces(
    response: http.client.HTTPResponse, rest: int, path: str, stop: threading.Event
) -> Iterator[bytes]:
    """The body: exactly `rest` bytes, or a TransferError at the point where it stops being that."""
    while True:
        if stop.is_set():
            raise _cancelled()
        try:
            piece = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise TransferError(f"the connection broke: {error}", where=path) from error
        if not piece:
            break
        if len(piece) > rest:
            raise InstallError("more bytes than the manifest names", code="too_large", where=path)
        rest -= len(piece)
        yield piece
    if rest:
        raise TransferError(f"the answer ended {rest} bytes early", where=path)


def _append(partial: Path, have: int, pieces: Iterator[bytes], progress: Progress) -> None:
    with partial.open("r+b" if partial.exists() else "wb") as stream:
        stream.truncate(have)
        stream.seek(have)
        try:
            for piece in pieces:
                stream.write(piece)
                progress(len(piece))
        finally:
            stream.flush()
            os.fsync(stream.fileno())


def _range_start(headers: http.client.HTTPMessage) -> int | None:
    text = headers.get("Content-Range") or ""
    start = text.removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() else None


def _hash(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            hasher.update(piece)
            time.sleep(0)
    return hasher.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cancelled() -> InstallError:
    return InstallError("a newer desired state arrived", code="cancelled", retryable=True)


def _disk(error: OSError, path: Path) -> InstallError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return InstallError(
        error.strerror or str(error), code="disk_full" if full else "storage", retryable=True, where=str(path)
    )


__all__ = ["Downloader", "Patience", "Progress"]
