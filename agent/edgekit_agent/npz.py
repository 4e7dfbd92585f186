"""Reading an npz that somebody else made, without trusting a byte of it.

`numpy.load` allocates what a member's header claims before it has seen the data, and a zip can
claim anything; so names, sizes, dtypes and shapes are checked first. Objects are never unpickled.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgekit.errors import DocumentError

MAX_BYTES = 256 << 20
MAX_MEMBERS = 256
_KINDS = "biufU"
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,  # NotImplementedError too: an unknown compression
    zlib.error,
    struct.error,
    zipfile.BadZipFile,
)


def read_npz(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """All arrays of an npz by name.

    Raises:
        DocumentError: not an npz, more than `max_bytes` unpacked, a header that does not fit its
            data, or a dtype that is neither a number, a truth value nor text.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or sum(item.file_size for item in members) > max_bytes:
                raise _fail(path, f"at most {MAX_MEMBERS} arrays of {max_bytes} bytes together are allowed")
            names = [_name(item, path) for item in members]
            if len(set(names)) != len(names):
                raise _fail(path, "two members have the same name")
            return {name: _read(archive, item, path) for name, item in zip(names, members, strict=True)}
    except _UNREADABLE as error:
        raise _fail(path, f"not an npz that can be read: {error}") from error


def _name(item: zipfile.ZipInfo, path: Path) -> str:
    if not item.filename.endswith(".npy"):
        raise _fail(path, f"member {item.filename!r} is no array")
    return item.filename.removesuffix(".npy")


def _read(archive: zipfile.ZipFile, item: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    with archive.open(item) as stream:
        begin, shape, dtype = _header(stream)
        if dtype.hasobject or dtype.kind not in _KINDS:
            raise _fail(path, f"{item.filename} has dtype {dtype}; numbers or text were expected")
        if begin + math.prod(shape) * dtype.itemsize != item.file_size:
            raise _fail(path, f"{item.filename}: its header does not fit its size")
    with archive.open(item) as stream:
        return np.asarray(npy.read_array(stream, allow_pickle=False))


def _header(stream: IO[bytes]) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Where the data begin, shape and dtype."""
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(stream)
    else:
        raise ValueError(f"npy format {version}")
    return stream.tell(), shape, dtype


def _fail(path: Path, message: str) -> DocumentError:
    return DocumentError(message, where=path.name, remedy="write it with numpy.savez", code="bad_npz")


__all__ = ["MAX_BYTES", "MAX_MEMBERS", "read_npz"]
