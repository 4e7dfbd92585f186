"""A content-addressed cache of stage results: a stage that ran with the same inputs never runs again.

A stage is a pure function of its key: name, this part's code, tools, digests of its inputs and its
parameters. Its result is a folder of files and a JSON value. A folder appears under its key whole or
not at all, so an interrupted run resumes where it was. What fails is not kept. When the cache grows over its
limit, the stages that nobody used for longest go first.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.digest import digest_of, digest_of_files, sha256_file
from edgekit.errors import StorageError
from edgekit_converters.errors import storage_error

_LIMIT = 4 << 30
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's result: files below `folder`, the JSON `value`, and the `key` that names both."""

    key: str
    folder: Path
    value: Any
    cached: bool


class Cache:
    """Stage results below `root`. `missed` is called before a stage is computed."""

    def __init__(self, root: Path, missed: Callable[[], None] | None = None) -> None:
        self._root = root
        self._missed = missed

    def stage(self, name: str, inputs: Mapping[str, Any], run: Callable[[Path], Any]) -> Stage:
        """The result for (`name`, `inputs`), computed by `run(folder)` if it is not there.

        Raises:
            StorageError: the cache cannot be written.
        """
        key = digest_of({"stage": name, "code": code_digest(), "inputs": inputs}).removeprefix("sha256:")
        place = self._root / key[:2] / key
        try:
            if (place / "stage.json").is_file():
                os.utime(place / "stage.json")  # used now: the last to go
                value = json.loads((place / "stage.json").read_text(encoding="utf-8"))
                return Stage(key=key, folder=place / "files", value=value, cached=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=place.parent, prefix=".stage-"))
        except (OSError, ValueError) as error:
            raise _storage(self._root, error) from error
        try:
            (work / "files").mkdir()
            if self._missed is not None:
                self._missed()
            value = run(work / "files")
            (work / "stage.json").write_text(json.dumps(value), encoding="utf-8")
            _publish(work, place)
        except OSError as error:
            raise _storage(self._root, error) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return Stage(key=key, folder=place / "files", value=value, cached=False)

    def prune(self, limit: int | None = None) -> int:
        """Delete the stages used longest ago until at most `limit` bytes are left; gives the bytes freed.

        The default limit is ``$EDGEKIT_CACHE_LIMIT_MB``, else 4 GiB. A stage in use by another process may
        go: that process reads what it has open and computes the rest again.
        """
        most = _limit() if limit is None else limit
        stages = []
        for mark in self._root.glob("??/*/stage.json"):
            with contextlib.suppress(OSError):
                size = sum(item.stat().st_size for item in mark.parent.rglob("*") if item.is_file())
                stages.append((mark.stat().st_mtime, size, mark.parent))
        total, freed = sum(size for _, size, _ in stages), 0
        for _, size, place in sorted(stages, key=lambda item: item[0]):
            if total - freed <= most:
                break
            shutil.rmtree(place, ignore_errors=True)
            freed += size
        return freed


@functools.cache
def code_digest() -> str:
    """Digest of this part's own source: what other code wrote is not taken for what this one would write."""
    files = sorted(path for path in _PACKAGE.rglob("*") if path.suffix in (".py", ".j2"))
    return digest_of_files((path.relative_to(_PACKAGE).as_posix(), sha256_file(path)) for path in files)


def default_root() -> Path:
    """``$EDGEKIT_CACHE``, else ``$XDG_CACHE_HOME/edgekit``, else ``~/.cache/edgekit``."""
    chosen = os.environ.get("EDGEKIT_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgekit"


def _limit() -> int:
    chosen = os.environ.get("EDGEKIT_CACHE_LIMIT_MB", "")
    return int(chosen) << 20 if chosen.isdigit() else _LIMIT


def _publish(work: Path, place: Path) -> None:
    try:
        work.rename(place)
    except OSError:
        # Another process finished the same stage first, with the same bytes; or a broken rest is there.
        if not (place / "stage.json").is_file():
            shutil.rmtree(place, ignore_errors=True)
            work.rename(place)


def _storage(root: Path, error: Exception) -> StorageError:
    problem = error if isinstance(error, OSError) else OSError(str(error))
    return storage_error(problem, str(root), "the stage cache cannot be used", "give another --cache")
