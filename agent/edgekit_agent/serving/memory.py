"""Giving freed memory back to the system: the C library keeps it otherwise."""

from __future__ import annotations

import sys


def give_back() -> None:
    """Ask glibc to return what is free; a library without ``malloc_trim`` (musl, macOS) is left alone."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


__all__ = ["give_back"]
