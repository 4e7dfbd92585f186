"""A content-addressed cache of stage results: a stage that ran with the same inputs never runs again.

A stage is a pure function of its key: name, code version, tools, digests of its inputs and its
parameters. Its result is a folder of files and a JSON value. A folder appears under its key whole or
not at all, so an interrupted run resumes where it was. What fails is not kept.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.digest import digest_of
from edgekit.errors import StorageError
from edgekit_converters.errors import storage_error

VERSION = 1
"""Raised whenever a stage's code changes what it writes."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's result: files below `folder`, the JSON `value`, and the `key` that names both."""

    key: str
    folder: Path
    value: Any
    cached: bool


class Cache:
    """Stage results below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def stage(self, name: str, inputs: Mapping[str, Any], run: Callable[[Path], Any]) -> Stage:
        """The result for (`name`, `inputs`), computed by `run(folder)` if it is not there.

        Raises:
            StorageError: the cache cannot be written.
        """
        key = digest_of({"stage": name, "version": VERSION, "inputs": inputs}).removeprefix("sha256:")
        place = self._root / key[:2] / key
        try:
            if (place / "stage.json").is_file():
                value = json.loads((place / "stage.json").read_text(encoding="utf-8"))
                return Stage(key=key, folder=place / "files", value=value, cached=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=place.parent, prefix=".stage-"))
        except (OSError, ValueError) as error:
            raise _storage(self._root, error) from error
        try:
            (work / "files").mkdir()
            value = run(work / "files")
            (work / "stage.json").write_text(json.dumps(value), encoding="utf-8")
            _publish(work, place)
        except OSError as error:
            raise _storage(self._root, error) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return Stage(key=key, folder=place / "files", value=value, cached=False)


def default_root() -> Path:
    """``$EDGEKIT_CACHE``, else ``$XDG_CACHE_HOME/edgekit``, else ``~/.cache/edgekit``."""
    chosen = os.environ.get("EDGEKIT_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgekit"


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
