"""The table of kernels, and how a kernel is declared.

A kernel is a function of numpy arrays whose parameters are called as the op's inputs are. It computes in
float32 (or wider) whatever the program's precision is: the caller rounds what comes back. Definitions:
coremltools' MIL ops reference, iOS 15 to 26. Where that says *undefined*, a kernel refuses instead of
guessing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.errors import Refusal

Array = NDArray[Any]
Result = Array | tuple[Array, ...]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One op's kernel. `moves`: its float results are values of its inputs, so nothing is rounded."""

    function: Callable[..., Any]
    moves: bool
    accepted: frozenset[str]
    required: frozenset[str]


KERNELS: dict[str, Kernel] = {}
"""MIL op type → its kernel."""


def kernel(*kinds: str, moves: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the kernel of the op types `kinds`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        add(kinds, function, moves=moves)
        return function

    return register


def add(kinds: tuple[str, ...], function: Callable[..., Any], *, moves: bool = False) -> None:
    """Register `function` for `kinds`; two kernels for one op are a mistake of ours."""
    parameters = inspect.signature(function).parameters.values()
    made = Kernel(
        function=function,
        moves=moves,
        accepted=frozenset(item.name for item in parameters),
        required=frozenset(item.name for item in parameters if item.default is inspect.Parameter.empty),
    )
    for kind in kinds:
        if kind in KERNELS:
            raise ValueError(f"two kernels for {kind}")
        KERNELS[kind] = made


def undefined(kind: str, why: str) -> Refusal:
    """The refusal of a result that the op's definition leaves open."""
    return Refusal(
        f"{kind}: {why}; the op's definition leaves the result open",
        remedy="lower the model without relying on it",
        code="undefined_behaviour",
    )


def unsupported(kind: str, why: str) -> Refusal:
    """The refusal of a form of an op that has no kernel here."""
    return Refusal(f"{kind}: {why}", remedy="use another target", code="no_evaluator_kernel")


def whole(values: Any) -> tuple[int, ...]:
    """Whole numbers of a vector or scalar."""
    return tuple(int(item) for item in np.atleast_1d(values))


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """Axes, counted from the front; all of them for None."""
    return tuple(range(rank)) if axes is None else tuple(item % rank for item in whole(axes))


def wide(x: Any) -> Array:
    """As float64, for short sums of parameters and coordinates."""
    return np.asarray(x, np.float64)


def at(x: Array, *index: Any) -> Array:
    """`x` indexed by places, slices and ellipses together."""
    found: Any = tuple(index)
    return np.asarray(x[found])
