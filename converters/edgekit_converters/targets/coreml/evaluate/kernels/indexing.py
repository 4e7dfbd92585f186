"""Gather, scatter and slices.

Indices outside of the tensor are refused: from iOS 17 on the definition leaves negative ones open too
(the ops have got `validate_indices` there).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import (
    Array,
    add,
    kernel,
    undefined,
    unsupported,
    whole,
)


def _checked(kind: str, indices: Array, size: int, validate: object) -> Array:
    """Indices from the front; `validate` is None before iOS 17, where negative ones count from the end."""
    low = -size if validate is None else 0
    found = indices.astype(np.int64)
    if found.size and (found.min() < low or found.max() >= size):
        raise undefined(kind, f"an index outside {low} to {size - 1}")
    return np.where(found < 0, found + size, found)


def _checked_rows(kind: str, indices: Array, sizes: tuple[int, ...], validate: object) -> tuple[Array, ...]:
    """The last axis of `indices` holds one index for each of the axes of `sizes`."""
    return tuple(_checked(kind, indices[..., i], size, validate) for i, size in enumerate(sizes))


@kernel("gather", moves=True)
def _gather(
    x: Array,
    indices: Array,
    axis: Array,
    batch_dims: Array | int = 0,
    validate_indices: object = None,
) -> Array:
    at, batch = int(axis) % x.ndim, int(batch_dims) % (indices.ndim or 1) if int(batch_dims) else 0
    found = _checked("gather", indices, x.shape[at], validate_indices)
    if not batch:
        return np.take(x, found, axis=at)
    rows = int(np.prod(x.shape[:batch]))
    flat, own = x.reshape(rows, *x.shape[batch:]), found.reshape(rows, *found.shape[batch:])
    parts = np.stack([np.take(a, b, axis=at - batch) for a, b in zip(flat, own, strict=True)])
    return parts.reshape(*x.shape[:batch], *parts.shape[1:])


@kernel("gather_along_axis", moves=True)
def _gather_along_axis(x: Array, indices: Array, axis: Array, validate_indices: object = None) -> Array:
    at = int(axis)
    found = _checked("gather_along_axis", indices, x.shape[at], validate_indices)
    if found.shape[:at] + found.shape[at:][1:] == x.shape[:at] + x.shape[at:][1:]:
        return np.take_along_axis(x, found, axis=at)
    cut = tuple(slice(None) if i == at % x.ndim else slice(n) for i, n in enumerate(found.shape))
    return np.take_along_axis(x[cut], found, axis=at)


@kernel("gather_nd", moves=True)
def _gather_nd(
    x: Array, indices: Array, batch_dims: Array | int = 0, validate_indices: object = None
) -> Array:
    batch, depth = int(batch_dims), indices.shape[-1]
    rows = _checked_rows("gather_nd", indices, x.shape[batch : batch + depth], validate_indices)
    if not batch:
        return np.asarray(x[rows])
    shape = indices.shape[:-1]
    lead = [
        np.arange(shape[i]).reshape([-1 if j == i else 1 for j in range(len(shape))]) for i in range(batch)
    ]
    index: Any = (*(np.broadcast_to(item, shape) for item in lead), *rows)
    return np.asarray(x[index])


_MODES: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def _scattered(kind: str, data: Array, index: Any, updates: Array, mode: str) -> Array:
    y = data.copy()
    if mode == "update":
        _refuse_repeats(kind, y, index, updates)
        y[index] = updates
    elif mode in _MODES:
        function: Any = _MODES[mode]
        function.at(y, index, updates)
    else:
        raise unsupported(kind, f"mode {mode!r}")
    return y


def _refuse_repeats(kind: str, y: Array, index: Any, updates: Array) -> None:
    """One place written twice with different values has no defined result."""
    places = np.arange(y.size).reshape(y.shape)[index]
    order = np.argsort(places, axis=None, kind="stable")
    flat, values = places.reshape(-1)[order], np.broadcast_to(updates, places.shape).reshape(-1)[order]
    same = flat[1:] == flat[:-1]
    if np.any(
        same & ~((values[1:] == values[:-1]) | ((values[1:] != values[1:]) & (values[:-1] != values[:-1])))
    ):
        raise undefined(kind, "one place is updated twice with different values")


@kernel("scatter")
def _scatter(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array,
    mode: str,
    validate_indices: object = None,
) -> Array:
    at = int(axis) % data.ndim
    found = _checked("scatter", indices, data.shape[at], validate_indices)
    index = (slice(None),) * at + (found,)
    return _scattered("scatter", data, index, updates, mode)


@kernel("scatter_along_axis")
def _scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array,
    mode: str,
    validate_indices: object = None,
) -> Array:
    at = int(axis) % data.ndim
    found = _checked("scatter_along_axis", indices, data.shape[at], validate_indices)
    index = list(np.indices(found.shape))
    index[at] = found
    return _scattered("scatter_along_axis", data, tuple(index), updates, mode)


@kernel("scatter_nd")
def _scatter_nd(
    data: Array, indices: Array, updates: Array, mode: str, validate_indices: object = None
) -> Array:
    depth = indices.shape[-1]
    rows = _checked_rows("scatter_nd", indices, data.shape[:depth], validate_indices)
    return _scattered("scatter_nd", data, rows, updates, mode)


def _slices(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None,
    begin_mask: Array | None,
    end_mask: Array | None,
    squeeze_mask: Array | None,
) -> Any:
    """An index of numpy's."""
    rank = x.ndim
    steps = whole(stride) if stride is not None else (1,) * rank
    free_begin, free_end, single = (
        np.zeros(rank, np.bool_) if mask is None else np.atleast_1d(mask)
        for mask in (begin_mask, end_mask, squeeze_mask)
    )
    found: list[Any] = []
    for i, (first, last, step) in enumerate(zip(whole(begin), whole(end), steps, strict=True)):
        if single[i]:
            place = 0 if free_begin[i] else first
            if not -x.shape[i] <= place < x.shape[i]:
                raise undefined("slice_by_index", f"index {place} of an axis of {x.shape[i]}")
            found.append(place)
        else:
            found.append(slice(None if free_begin[i] else first, None if free_end[i] else last, step))
    return tuple(found)


def _slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    return np.asarray(x[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)])


add(("slice_by_index",), _slice_by_index, moves=True)


@kernel("slice_update", moves=True)
def _slice_update(
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    y = x.copy()
    y[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)] = update
    return y


@kernel("slice_by_size", moves=True)
def _slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """A size of -1 takes the rest."""
    found = []
    for n, first, count in zip(x.shape, whole(begin), whole(size), strict=True):
        first = first + n if first < 0 else first
        last = n if count == -1 else first + count
        if not 0 <= first <= last <= n:
            raise undefined("slice_by_size", f"elements {first} to {last} of an axis of {n}")
        found.append(slice(first, last))
    return np.asarray(x[tuple(found)])
