"""Tensors that must share one grid: disjoint sets, joined as an op after another asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgekit_converters.quantize.grids import Grid, activation_grid


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a tensor is quantized, apart from its range."""

    type: str
    symmetric: bool = False
    power_of_two: bool = False
    unsigned: bool = False

    def grid(self, low: float, high: float) -> Grid:
        """The grid for values within [low, high]."""
        return activation_grid(
            low,
            high,
            self.type,
            symmetric=self.symmetric,
            power_of_two=self.power_of_two,
            unsigned=self.unsigned,
        )

    def takes(self, other: Kind) -> bool:
        """Whether what reads this kind can read `other` as it is: zero point 0 is a zero point too."""
        return other == self or other == replace(self, symmetric=True)


class Groups:
    """Each tensor's group, its kind, the union of its ranges, and its fixed grid if there is one."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._kind: dict[str, Kind] = {}
        self._range: dict[str, tuple[float, float]] = {}
        self._fixed: dict[str, Grid] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._parent

    def __iter__(self) -> Iterator[str]:
        return iter(self._parent)

    def add(self, name: str, kind: Kind, span: tuple[float, float], fixed: Grid | None) -> None:
        """A tensor alone in its group."""
        self._parent[name] = name
        self._kind[name] = kind
        self._range[name] = span
        if fixed is not None:
            self._fixed[name] = fixed

    def join(self, first: str, second: str) -> bool:
        """Make two groups one; False, and nothing done, when their kinds or fixed grids differ."""
        a, b = self._root(first), self._root(second)
        if a == b:
            return True
        if self._kind[a] != self._kind[b]:
            return False
        fixed = {item for root in (a, b) if (item := self._fixed.get(root)) is not None}
        if len(fixed) > 1:
            return False
        self._parent[b] = a
        self._range[a] = (
            min(self._range[a][0], self._range[b][0]),
            max(self._range[a][1], self._range[b][1]),
        )
        if fixed:
            self._fixed[a] = fixed.pop()
        return True

    def kind(self, name: str) -> Kind:
        """The group's kind."""
        return self._kind[self._root(name)]

    def range(self, name: str) -> tuple[float, float]:
        """The union of the group's ranges."""
        return self._range[self._root(name)]

    def fixed(self, name: str) -> Grid | None:
        """The grid that the rules fix for the group."""
        return self._fixed.get(self._root(name))

    def grid(self, name: str) -> Grid:
        """The group's grid."""
        root = self._root(name)
        kind, (low, high) = self._kind[root], self._range[root]
        return self._fixed.get(root) or kind.grid(low, high)

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name
