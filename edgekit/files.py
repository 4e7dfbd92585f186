"""Writing files so that a power cut leaves either the old content or the new, never a mixture."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path, PurePosixPath

from edgekit.errors import DocumentError, StorageError


def atomic_write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data`: temporary file, fsync, rename, fsync of the folder.

    Raises:
        StorageError: disk full or folder not writable; the old content is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _storage(path, error) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise _storage(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """Read a whole file, refusing more than `limit` bytes.

    Raises:
        StorageError: missing, unreadable or larger than `limit`.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read() if limit is None else stream.read(limit + 1)
    except OSError as error:
        raise _storage(path, error) from error
    if limit is not None and len(data) > limit:
        raise StorageError(f"larger than {limit} bytes", where=str(path))
    return data


def safe_relative(path: str, *, where: str) -> PurePosixPath:
    """Check that an untrusted `path` stays inside the folder it is relative to.

    Raises:
        DocumentError: absolute, empty, with ``..``, a back slash, a NUL or a drive.
    """
    pure = PurePosixPath(path)
    bad = not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or ":" in path
    if bad or str(pure) != path:
        raise DocumentError(f"path {path!r} is not a plain relative path", where=where)
    return pure


def _storage(path: Path, error: OSError) -> StorageError:
    full = error.errno == 28
    return StorageError(
        error.strerror or str(error),
        where=str(path),
        remedy="free some space and run it again" if full else None,
        code="disk_full" if full else None,
    )
