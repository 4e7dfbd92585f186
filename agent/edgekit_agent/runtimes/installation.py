"""Which runtimes are installed here, found without importing them."""

from __future__ import annotations

from importlib import metadata


def installed_version(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed, None when none is."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


__all__ = ["installed_version"]
