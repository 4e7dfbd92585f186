"""Keeping the resident process small: what is not needed is not loaded, what is free is returned.

The standard library and paho import `ssl` (and with it OpenSSL, some 5 MiB) whenever they can. A
device whose service and broker are reached without TLS never uses it, so it is marked as absent before
they are imported; they all handle that. Called by the command line only, never by a library.
"""

from __future__ import annotations

import gc
import sys

_TLS = ("ssl", "_ssl")


def without_tls() -> None:
    """Keep OpenSSL's TLS out of this process. Must run before anything imports it."""
    for name in _TLS:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None marks a module as absent


def settle() -> None:
    """After start-up: drop garbage, keep what is left out of later collections, return free memory."""
    from edgekit_agent.serving.memory import give_back

    gc.collect()
    gc.freeze()
    give_back()


__all__ = ["settle", "without_tls"]
