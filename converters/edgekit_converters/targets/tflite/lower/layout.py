"""Axis orders, solved once: pure functions over permutations.

A value of the ONNX graph may be held in the TFLite graph in several axis orders. Held with `perm`,
the tensor's axis ``i`` is the value's axis ``perm[i]`` (as in ``numpy.transpose(value, perm)``).
Spatial ops of TFLite want channels last; `Context` keeps what is held and adds a TRANSPOSE only when
an order is asked for that nobody has made yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit_converters.targets.tflite.lower.tensors import Perm, Shape


def identity(rank: int) -> Perm:
    """The logical order."""
    return tuple(range(rank))


def channels_last(rank: int) -> Perm:
    """N, spatial axes, C for a value in the order N, C, spatial axes."""
    return (0, *range(2, rank), 1) if rank > 2 else identity(rank)


def inverse(perm: Sequence[int]) -> Perm:
    """The permutation that undoes `perm`."""
    result = [0] * len(perm)
    for place, axis in enumerate(perm):
        result[axis] = place
    return tuple(result)


def between(held: Perm, wanted: Perm) -> Perm:
    """The transposition that turns a tensor held with `held` into one held with `wanted`."""
    place = inverse(held)
    return tuple(place[axis] for axis in wanted)


def permuted(shape: Shape, perm: Perm) -> Shape:
    """`shape` in the order `perm`."""
    return tuple(shape[axis] for axis in perm)


def moves_nothing(shape: Shape, perm: Perm) -> bool:
    """Whether transposing a tensor of `shape` by `perm` leaves its bytes where they are.

    True when the axes longer than one keep their order: the transposition is then a reshape.
    """
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def without(perm: Perm, axes: Iterable[int]) -> Perm:
    """`perm` of what is left when the value loses `axes`."""
    gone = set(axes)
    kept = [axis for axis in perm if axis not in gone]
    ranks = {axis: rank for rank, axis in enumerate(sorted(kept))}
    return tuple(ranks[axis] for axis in kept)
