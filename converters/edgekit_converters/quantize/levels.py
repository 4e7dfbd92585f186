"""The strongest level of compression for each layer that a verdict still accepts. Pure.

First the strongest level that all layers bear together, then, the largest layers first, as much more
of each alone as is accepted with the others as they are. Acceptance is taken to fall with strength:
levels are bisected. A choice that was never accepted is never returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Choice = Mapping[str, int]


def strongest(layers: Sequence[str], count: int, accepted: Callable[[Choice], bool]) -> dict[str, int]:
    """Level by layer, 0 (nothing is done) to `count` - 1; `layers` come largest first."""
    together = _largest(0, count - 1, lambda level: accepted(dict.fromkeys(layers, level)))
    choice = dict.fromkeys(layers, together)
    for layer in layers:
        start = choice[layer]

        def bears(level: int, layer: str = layer) -> bool:
            return accepted({**choice, layer: level})

        choice[layer] = _largest(start, count - 1, bears)
    return choice


def _largest(low: int, high: int, accepted: Callable[[int], bool]) -> int:
    """The largest level in (low, high] that is accepted, else `low`."""
    while low < high:
        middle = (low + high + 1) // 2
        if accepted(middle):
            low = middle
        else:
            high = middle - 1
    return low
