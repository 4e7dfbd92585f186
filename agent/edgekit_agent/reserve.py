"""A little disk space kept aside, so that an agent whose disk is full still starts and serves.

A start has to be written down (the boot counter orders everything a device reports, and SQLite makes
its log before it reads), which a full disk forbids. The reserve is given up then, and taken again by
a later start that finds space.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

SIZE = 1 << 20
NEEDED = SIZE // 2
"""Free bytes below which a start cannot count on writing what it must."""


def make_room(path: Path) -> None:
    """Give up the reserve at `path` if the disk is full."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < NEEDED:
            path.unlink(missing_ok=True)


def keep(path: Path) -> None:
    """Have `SIZE` bytes at `path`; where that would fill the disk there is no reserve."""
    with contextlib.suppress(OSError):
        if path.exists() or shutil.disk_usage(path.parent).free < SIZE + NEEDED:
            return
        with path.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, SIZE)


__all__ = ["NEEDED", "SIZE", "keep", "make_room"]
