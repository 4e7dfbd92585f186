"""Content-addressed bytes: ``blobs/sha256/<first two hex>/<hex>``, written whole or not at all.

Implements `edgekit.ports.Store`. Bytes are hashed while they are copied, so that what lies here is
what its name says even when the source changes under the copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import BinaryIO

from edgekit.digest import sha256_file, sha256_hex
from edgekit.errors import DocumentError, StorageError
from edgekit.files import atomic_write, sync_folder

_HEX = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20


class BlobStore:
    """Blobs below `root`; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: Path, *, expected: str | None = None) -> str:
        """Take in a file; returns its sha256 hex. The same bytes twice cost nothing.

        Args:
            path: the file.
            expected: the sha256 hex the bytes must have.

        Raises:
            DocumentError: the bytes are not the expected ones (code ``digest_mismatch``).
            StorageError: unreadable, or the disk is full; nothing is left behind.
        """
        if expected is not None and self.has(expected):
            return expected
        folder = self._root / "sha256"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".incoming.")
        except OSError as error:
            raise _failed(folder, error) from error
        try:
            with os.fdopen(handle, "wb") as target, path.open("rb") as source:
                sha = _copy(source, target)
            if expected is not None and sha != expected:
                raise DocumentError(
                    f"sha256 is {sha[:12]}…, expected {expected[:12]}…",
                    where=str(path),
                    remedy="the file was changed; make the package again",
                    code="digest_mismatch",
                )
            self._adopt(Path(temporary), sha)
        except OSError as error:
            raise _failed(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return sha

    def put_bytes(self, data: bytes) -> str:
        """Take in `data`; returns its sha256 hex."""
        sha = sha256_hex(data)
        if not self.has(sha):
            atomic_write(self._place(sha), data)
        return sha

    def has(self, sha256: str) -> bool:
        """Whether these bytes are here, whole."""
        return self._place(sha256).is_file()

    def path(self, sha256: str) -> Path:
        """Where the bytes lie.

        Raises:
            StorageError: they are not here.
        """
        place = self._place(sha256)
        if not place.is_file():
            raise StorageError("no such blob", where=sha256, code="unknown_blob")
        return place

    def verify(self, sha256: str) -> None:
        """Read the bytes again and compare.

        Raises:
            DocumentError: they are no longer what their name says (code ``digest_mismatch``).
            StorageError: they are not here.
        """
        place = self.path(sha256)
        if sha256_file(place) != sha256:
            raise DocumentError(
                "the stored bytes are damaged",
                where=str(place),
                remedy="remove this file and add the release again",
                code="digest_mismatch",
            )

    def _place(self, sha256: str) -> Path:
        if not _HEX.match(sha256):
            raise DocumentError("64 lower-case hex digits were expected", where="sha256")
        return self._root / "sha256" / sha256[:2] / sha256

    def _adopt(self, temporary: Path, sha256: str) -> None:
        place = self._place(sha256)
        place.parent.mkdir(exist_ok=True)
        temporary.chmod(0o644)
        temporary.replace(place)
        sync_folder(place.parent)


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    hasher = hashlib.sha256()
    while piece := source.read(_CHUNK):
        hasher.update(piece)
        target.write(piece)
    target.flush()
    os.fsync(target.fileno())
    return hasher.hexdigest()


def _failed(path: Path, error: OSError) -> StorageError:
    full = error.errno == 28
    return StorageError(
        error.strerror or str(error),
        where=str(path),
        remedy="free some space and run it again" if full else None,
        code="disk_full" if full else None,
    )
