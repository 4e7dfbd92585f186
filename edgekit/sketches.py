"""Counters of fixed size that merge by addition: what a telemetry window is made of.

Device → site → fleet is a sum, in any order and grouping; nothing here keeps samples. `Bins` holds
counts over the package's frozen bins (classes, or real-valued bins with inner edges);
`LatencyHistogram` has logarithmic buckets, eight a doubling, so a quantile read from it is within 4.5
% of the truth.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit.wire import Fields

_PER_DOUBLING = 8
_LOWEST_MS = 2.0**-10
_BUCKETS = 30 * _PER_DOUBLING


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Counts per bin. Merge two only when they have the same number of bins (the same package)."""

    counts: tuple[int, ...]

    @classmethod
    def empty(cls, size: int) -> Bins:
        """`size` bins of zero."""
        return cls(counts=(0,) * size)

    @property
    def total(self) -> int:
        """Number of values counted."""
        return sum(self.counts)

    def add(self, counts: Sequence[int]) -> Bins:
        """With `counts` added bin by bin.

        Raises:
            ValueError: another number of bins.
        """
        return Bins(counts=tuple(a + b for a, b in zip(self.counts, counts, strict=True)))

    def merge(self, other: Bins) -> Bins:
        """The sum of both."""
        return self.add(other.counts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"counts": list(self.counts)}

    @classmethod
    def read(cls, source: Fields) -> Bins:
        """Read from untrusted JSON."""
        counts = source.integers("counts")
        if len(counts) > 4096 or any(count < 0 for count in counts):
            raise source.fail("counts", "at most 4096 counts ≥ 0 were expected")
        return cls(counts=counts)


def bin_index(edges: Sequence[float], value: float) -> int:
    """Index of `value` among ``len(edges) + 1`` bins: bin i holds edges[i-1] ≤ value < edges[i]."""
    return bisect_right(edges, value)


@dataclass(frozen=True, kw_only=True)
class LatencyHistogram:
    """Durations in milliseconds: `buckets` maps a bucket's number to its count, `sum_ms` and `max_ms`
    are exact.

    Bucket b holds durations up to ``2**(b/8 - 10)`` ms and above the bucket before it; b runs from 0
    to 240 (17 minutes).
    """

    buckets: Mapping[int, int] = field(default_factory=dict)
    sum_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.buckets.values())

    def merge(self, other: LatencyHistogram) -> LatencyHistogram:
        """The sum of both."""
        merged = dict(self.buckets)
        for bucket, count in other.buckets.items():
            merged[bucket] = merged.get(bucket, 0) + count
        return LatencyHistogram(
            buckets=merged, sum_ms=self.sum_ms + other.sum_ms, max_ms=max(self.max_ms, other.max_ms)
        )

    def quantile(self, share: float) -> float | None:
        """The duration in ms below which `share` of all lie (geometric middle of its bucket), None
        when empty."""
        rank = share * self.count
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank and seen:
                return min(bucket_upper(bucket) * 2 ** (-0.5 / _PER_DOUBLING), self.max_ms or math.inf)
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; buckets as ``[[number, count], …]`` in order."""
        pairs = [[bucket, self.buckets[bucket]] for bucket in sorted(self.buckets)]
        return {"buckets": pairs, "sum_ms": round(self.sum_ms, 6), "max_ms": round(self.max_ms, 6)}

    @classmethod
    def read(cls, source: Fields) -> LatencyHistogram:
        """Read from untrusted JSON."""
        buckets: dict[int, int] = {}
        for pair in source.sequence("buckets"):
            whole = isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)
            if not whole or not 0 <= pair[0] <= _BUCKETS or pair[1] < 0 or pair[0] in buckets:
                raise source.fail("buckets", f"[bucket 0…{_BUCKETS}, count] pairs were expected")
            buckets[pair[0]] = pair[1]
        return cls(buckets=buckets, sum_ms=source.number("sum_ms", 0.0), max_ms=source.number("max_ms", 0.0))


class LatencyRecorder:
    """A LatencyHistogram being filled. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._sum = 0.0
        self._max = 0.0

    def record(self, milliseconds: float) -> None:
        """Count one duration."""
        bucket = bucket_of(milliseconds)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._sum += milliseconds
        self._max = max(self._max, milliseconds)

    def snapshot(self) -> LatencyHistogram:
        """What was counted so far."""
        return LatencyHistogram(buckets=dict(self._buckets), sum_ms=self._sum, max_ms=self._max)


def bucket_of(milliseconds: float) -> int:
    """Number of the bucket a duration falls into."""
    if milliseconds <= _LOWEST_MS:
        return 0
    return min(math.ceil(math.log2(milliseconds / _LOWEST_MS) * _PER_DOUBLING - 1e-9), _BUCKETS)


def bucket_upper(bucket: int) -> float:
    """Upper bound of a bucket in milliseconds."""
    return float(_LOWEST_MS * 2 ** (bucket / _PER_DOUBLING))
