"""A package's papers: ``measurements.json`` and ``report/``, which lie outside its digest.

Kept with the release below ``papers/<sha256 of the package>/`` and never given to devices. They must name
the package they came with; they are not signed, and adding the package again (measured anew) replaces them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgekit.errors import DocumentError, StorageError
from edgekit.files import read_bytes
from edgekit_fleet.home import Home

MEASUREMENTS, REPORT = "measurements.json", "report"
_LIMIT = 64 << 20


def papers_folder(home: Home, digest: str) -> Path:
    """Where the papers of the package with this digest are kept, if it has any."""
    return home.papers / digest.partition(":")[2]


def papers_of(home: Home, digest: str) -> tuple[str, ...]:
    """The papers kept for a package, as relative paths; none for one that came without."""
    folder = papers_folder(home, digest)
    return tuple(path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())


def keep_papers(home: Home, digest: str, package: Path) -> tuple[str, ...]:
    """Copy the papers of a package folder; returns what is kept now.

    Raises:
        DocumentError: the measurements are another package's, or the papers are too large.
        StorageError: unreadable, or the disk is full; what was kept before stays.
    """
    found = _found(package)
    if not found:
        return papers_of(home, digest)
    _check(package, found, digest)
    target = papers_folder(home, digest)
    try:
        home.papers.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=home.papers, prefix=".new."))
        try:
            for name in found:
                place = fresh / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(package / name, place)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"the papers cannot be kept: {error.strerror}", where=str(target)) from error
    return papers_of(home, digest)


def _found(package: Path) -> list[str]:
    files = [package / MEASUREMENTS, *sorted((package / REPORT).rglob("*"))]
    real = [path for path in files if path.is_file() and not path.is_symlink()]
    return [path.relative_to(package).as_posix() for path in real]


def _check(package: Path, found: list[str], digest: str) -> None:
    size = sum((package / name).stat().st_size for name in found)
    if size > _LIMIT:
        raise DocumentError(f"{size} bytes of papers, at most {_LIMIT} are kept", where=str(package / REPORT))
    if MEASUREMENTS not in found:
        return
    place = package / MEASUREMENTS
    try:
        body: Any = json.loads(read_bytes(place, limit=_LIMIT))
    except ValueError as error:
        raise DocumentError(f"not JSON: {error}", where=str(place)) from error
    named = body.get("package") if isinstance(body, dict) else None
    if named != digest:
        raise DocumentError(
            f"these are the measurements of another package ({str(named)[:19]}…)",
            where=str(place),
            remedy="convert again, or remove the file",
            code="foreign_measurements",
        )


__all__ = ["keep_papers", "papers_folder", "papers_of"]
