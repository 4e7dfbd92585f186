"""Lists of tensors: Python lists here. What was not written yet is zero, or None without a known shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel, undefined, whole


@kernel("make_list")
def _make_list(init_length: Array, dynamic_length: Array, elem_shape: Any, dtype: str) -> list[Array | None]:
    sizes = [-1 if isinstance(item, str) else int(item) for item in elem_shape]
    if min(sizes, default=0) < 0:
        return [None] * int(init_length)
    whole_numbers = {"int32": np.int32, "bool": np.bool_}
    return [np.zeros(sizes, whole_numbers.get(str(dtype), np.float32)) for _ in range(int(init_length))]


@kernel("list_length")
def _list_length(ls: list[Any]) -> Array:
    return np.asarray(len(ls), np.int32)


@kernel("list_read")
def _list_read(ls: list[Any], index: Array) -> Array:
    at = int(index)
    if not 0 <= at < len(ls) or ls[at] is None:
        raise undefined("list_read", f"element {at} was not written")
    return np.asarray(ls[at])


@kernel("list_write")
def _list_write(ls: list[Any], index: Array, value: Array) -> list[Any]:
    return _written(ls, [(int(index), value)])


@kernel("list_scatter")
def _list_scatter(ls: list[Any], indices: Array, value: Array) -> list[Any]:
    return _written(ls, list(zip(whole(indices), value, strict=True)))


@kernel("list_gather")
def _list_gather(ls: list[Any], indices: Array) -> Array:
    return np.stack([_list_read(ls, np.asarray(at)) for at in whole(indices)])


def _written(ls: list[Any], items: list[tuple[int, Array]]) -> list[Any]:
    found = list(ls)
    for at, value in items:
        if at < 0:
            raise undefined("list_write", f"element {at}")
        found += [np.zeros_like(value)] * (at + 1 - len(found))
        found[at] = value
    return found
