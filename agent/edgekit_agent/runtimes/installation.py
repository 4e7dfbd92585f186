"""Which distributions are installed here, found without importing them; and a variant's one file.

The names of the ``.dist-info`` folders are read rather than `importlib.metadata`, which would bring the
whole e-mail parser into the resident process; it is asked only where no folder is found.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

from edgekit.errors import UnavailableError
from edgekit.package import Variant


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


def only_file(folder: Path, variant: Variant, suffix: str) -> Path:
    """The one file of a variant that ends so, below the package folder.

    Raises:
        UnavailableError: there is none, or more than one.
    """
    files = [item for item in variant.files if item.path.endswith(suffix)]
    if len(files) != 1:
        raise UnavailableError(
            f"one {suffix} file was expected in the variant, not {len(files)}",
            where=variant.id,
            remedy="convert the model again",
        )
    return folder / files[0].path


def _from_folders(name: str) -> str | None:
    for entry in sys.path:
        folder = Path(entry or ".")
        for suffix in ("dist-info", "egg-info"):
            for path in folder.glob(f"{name}-*.{suffix}"):
                return path.name.removeprefix(f"{name}-").removesuffix(f".{suffix}").split("-py")[0]
    return None


__all__ = ["installed_version", "only_file"]
