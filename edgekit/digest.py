"""Canonical JSON and SHA-256: how everything in edgekit gets its name.

Canonical form: UTF-8, keys sorted by code point, no white space, no NaN or infinity, floats in
Python's shortest round-trip form. It is RFC 8785 for the documents edgekit writes (ASCII keys,
numbers within ±2**53). Signatures are made over these bytes too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.errors import DocumentError, StorageError

PREFIX = "sha256:"
_CHUNK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Serialise JSON-ready `value` to its one canonical byte string.

    Raises:
        DocumentError: a value JSON cannot carry, NaN and infinity included.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise DocumentError(f"not canonical JSON: {error}") from error


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """``sha256:<hex>`` of the canonical JSON of `value`."""
    return PREFIX + sha256_hex(canonical_json(value))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in 1 MiB pieces.

    Raises:
        StorageError: the file cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                hasher.update(piece)
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error
    return hasher.hexdigest()


def digest_of_files(files: Iterable[tuple[str, str]]) -> str:
    """Digest of a set of files given as (relative path, sha256 hex): order does not matter.

    This is a variant's digest: the same bytes under the same names have the same digest in every
    package, so a device can tell that it already runs them.
    """
    return digest_of(sorted([path, sha] for path, sha in files))
