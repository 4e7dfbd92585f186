"""Comparing version numbers, the one way it is done."""

from __future__ import annotations

import re


def version_key(version: str) -> tuple[int, ...]:
    """The leading numbers of a version for comparison: ``2.14.0rc1`` gives (2, 14), as ``2.14`` does."""
    numbers = re.match(r"\d+(?:\.\d+)*", version.strip())
    parts = [int(part) for part in numbers.group().split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
