"""Keeping the resident process small: what is not needed is not loaded, what is free is returned.

The standard library and paho import TLS and OpenSSL's hashes (together some 8 MiB) whenever they can,
and `shutil` the compressors. A device whose service and broker are reached without TLS never uses
them: they are marked as absent while the agent's own modules are imported, which all have a way
without (SHA-256 is then Python's own C code). `settle` lifts the marks, so that a runtime that is loaded
later finds the whole standard library. Called by the command line only, never by a library.
"""

from __future__ import annotations

import gc
import sys

_SPARED = ("ssl", "_ssl", "_hashlib", "_bz2", "_lzma")


def without_tls() -> None:
    """Keep TLS out of this process for now. Must run before anything imports it."""
    for name in _SPARED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None marks a module as absent


def with_tls() -> None:
    """Lift the marks: what is imported from now on finds everything."""
    for name in _SPARED:
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


def settle() -> None:
    """After start-up: lift the marks, drop garbage, return free memory to the system."""
    with_tls()
    trim()


def trim() -> None:
    """Drop garbage and return free memory to the system (after a document was dealt with)."""
    from edgekit_agent.serving.memory import give_back

    gc.collect()
    give_back()


__all__ = ["settle", "trim", "with_tls", "without_tls"]
