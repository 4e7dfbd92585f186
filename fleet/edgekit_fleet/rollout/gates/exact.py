"""`edgekit.paired`, remembered: hundreds of devices with equal counts ask the same question."""

from __future__ import annotations

from functools import lru_cache

from edgekit import paired

_SIZE = 4096


@lru_cache(maxsize=_SIZE)
def paired_drop(lost: int, gained: int, n: int, confidence: float) -> paired.PairedDrop:
    """`edgekit.paired.paired_drop`."""
    return paired.paired_drop(lost, gained, n, confidence=confidence)


@lru_cache(maxsize=_SIZE)
def binomial_tail(k: int, n: int, p: float) -> float:
    """`edgekit.paired.binomial_tail`."""
    return paired.binomial_tail(k, n, p)


@lru_cache(maxsize=_SIZE)
def binomial_lower(k: int, n: int, confidence: float) -> float:
    """`edgekit.paired.binomial_lower`."""
    return paired.binomial_lower(k, n, confidence)


@lru_cache(maxsize=_SIZE)
def binomial_upper(k: int, n: int, confidence: float) -> float:
    """`edgekit.paired.binomial_upper`."""
    return paired.binomial_upper(k, n, confidence)
