"""The strongest level of compression for each layer that a verdict still accepts. Pure.

First the strongest level that all layers bear together, then, the largest layers first, as much more
of each alone as is accepted with the others as they are. Acceptance is taken to fall with strength:
levels are bisected. A choice that was never accepted is never returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Choice = Mapping[str, int]
ALONE = 24
"""Layers looked at one by one, the largest; the others keep what all bear together."""


def strongest(layers: Sequence[str], count: int, accepted: Callable[[Choice], bool]) -> dict[str, int]:
    """Level by layer, 0 (nothing is done) to `count` - 1; `layers` come largest first."""
    together = _largest(0, count - 1, lambda level: accepted(dict.fromkeys(layers, level)))
    choice = dict.fromkeys(layers, together)
    for layer in layers[:ALONE]:
        start = choice[layer]

        def bears(level: int, layer: str = layer) -> bool:
            return accepted({**choice, layer: level})

        choice[layer] = _largest(start, count - 1, bears)
    return choice


def further(choice: Choice, count: int, accepted: Callable[[Choice], bool]) -> dict[str, int]:
    """`choice` with every layer as many levels stronger as is accepted (at most the last level)."""

    def raised(steps: int) -> dict[str, int]:
        return {layer: min(level + steps, count - 1) for layer, level in choice.items()}

    room = count - 1 - min(choice.values(), default=count - 1)
    return raised(_largest(0, room, lambda steps: accepted(raised(steps))))


def _largest(low: int, high: int, accepted: Callable[[int], bool]) -> int:
    """The largest level in (low, high] that is accepted, else `low`."""
    while low < high:
        middle = (low + high + 1) // 2
        if accepted(middle):
            low = middle
        else:
            high = middle - 1
    return low
