"""The arena's plan: where each tensor lies, so that those that live at the same time never overlap.

Greedy, best fit: tensors are placed one after the other, each into the smallest gap that is free for as
long as it lives. Two orders are tried, largest first and first come first; the better plan is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """`size` bytes that are in use from step `first` to step `last`, both included."""

    key: int
    size: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both are in use at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Offsets by key, all multiples of the alignment, and the arena's size."""

    offsets: Mapping[int, int]
    size: int


def plan(buffers: Sequence[Buffer], alignment: int = 4) -> Plan:
    """The smaller of both orders' plans."""
    by_size = sorted(buffers, key=lambda item: (-item.size, item.first, item.key))
    by_time = sorted(buffers, key=lambda item: (item.first, -item.size, item.key))
    return min((_placed(order, alignment) for order in (by_size, by_time)), key=lambda item: item.size)


def _placed(order: Sequence[Buffer], alignment: int) -> Plan:
    offsets: dict[int, int] = {}
    done: list[Buffer] = []
    for item in order:
        taken = sorted((offsets[other.key], other.size) for other in done if other.meets(item))
        offsets[item.key] = _best_gap(item.size, taken, alignment)
        done.append(item)
    ends = [offsets[item.key] + item.size for item in done]
    return Plan(offsets=offsets, size=_aligned(max(ends, default=0), alignment))


def _best_gap(size: int, taken: Sequence[tuple[int, int]], alignment: int) -> int:
    """The start of the smallest gap between what is taken, or the place after all of it."""
    best: tuple[int, int] | None = None
    free = 0
    for start, length in taken:
        room = start - free
        if room >= size and (best is None or room < best[0]):
            best = (room, free)
        free = max(free, _aligned(start + length, alignment))
    return free if best is None else best[1]


def _aligned(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
