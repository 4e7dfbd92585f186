"""Which distributions are installed here, found without importing them.

The names of the ``.dist-info`` folders are read rather than `importlib.metadata`, which would bring the
whole e-mail parser into the resident process; it is asked only where no folder is found.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=16)
def installed_version(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed, None when none is."""
    for name in distributions:
        found = _from_folders(name.replace("-", "_").lower())
        if found is not None:
            return found
    from importlib import metadata

    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _from_folders(name: str) -> str | None:
    for entry in sys.path:
        folder = Path(entry or ".")
        for suffix in ("dist-info", "egg-info"):
            for path in folder.glob(f"{name}-*.{suffix}"):
                return path.name.removeprefix(f"{name}-").removesuffix(f".{suffix}").split("-py")[0]
    return None


__all__ = ["installed_version"]
