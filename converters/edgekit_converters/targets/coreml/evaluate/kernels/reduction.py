"""Reductions, cumulative sums, argmax and argmin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.elementwise import is_float
from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, add, axes_of, kernel, undefined

_Reduce = Callable[..., Any]


def _sum(x: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return x.sum(axis=axis, keepdims=keepdims, dtype=x.dtype)


def _mean(x: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    if is_float(x):
        return x.mean(axis=axis, keepdims=keepdims)
    total = x.sum(axis=axis, keepdims=keepdims, dtype=np.int64)
    count = x.size // max(1, total.size)
    if np.any(total % count):
        raise undefined("reduce_mean", "a mean of whole numbers that is not whole")
    return (total // count).astype(x.dtype)


def _prod(x: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return x.prod(axis=axis, keepdims=keepdims, dtype=x.dtype)


def _log_sum_exp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    total = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total if keepdims else total.squeeze(axis)


def _whole_needs(kind: str, function: _Reduce) -> _Reduce:
    """A result that is a root or a logarithm has no definition for whole numbers."""

    def reduce(x: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
        if not is_float(x):
            raise undefined(kind, "of whole numbers")
        return function(x, axis, keepdims)

    return reduce


_REDUCTIONS: dict[str, _Reduce] = {
    "reduce_l1_norm": lambda x, axis, keepdims: _sum(np.abs(x), axis, keepdims),
    "reduce_l2_norm": _whole_needs(
        "reduce_l2_norm", lambda x, axis, keepdims: np.sqrt(_sum(np.square(x), axis, keepdims))
    ),
    "reduce_log_sum": _whole_needs(
        "reduce_log_sum", lambda x, axis, keepdims: np.log(_sum(x, axis, keepdims))
    ),
    "reduce_log_sum_exp": _whole_needs("reduce_log_sum_exp", _log_sum_exp),
    "reduce_max": lambda x, axis, keepdims: x.max(axis=axis, keepdims=keepdims),
    "reduce_mean": _mean,
    "reduce_min": lambda x, axis, keepdims: x.min(axis=axis, keepdims=keepdims),
    "reduce_prod": _prod,
    "reduce_sum": _sum,
    "reduce_sum_square": lambda x, axis, keepdims: _sum(np.square(x), axis, keepdims),
}


def _reduction(function: _Reduce) -> _Reduce:
    def reduce(x: Array, keep_dims: Array, axes: Array | None = None) -> Array:
        return np.asarray(function(x, axes_of(axes, x.ndim), bool(keep_dims)))

    return reduce


for _name, _function in _REDUCTIONS.items():
    add((_name,), _reduction(_function))


def _position(function: Callable[..., Any]) -> Callable[..., Any]:
    def find(x: Array, axis: Array, keep_dims: Array, output_dtype: str = "int32") -> Array:
        """The first of equal values, where the definition leaves it open."""
        found = function(x, axis=int(axis), keepdims=bool(keep_dims))
        return np.asarray(found, np.dtype(str(output_dtype)))

    return find


add(("reduce_argmax",), _position(np.argmax))
add(("reduce_argmin",), _position(np.argmin))


@kernel("cumsum")
def _cumsum(x: Array, axis: Array, exclusive: Array, reverse: Array) -> Array:
    along = int(axis)
    turned = np.flip(x, along) if bool(reverse) else x
    y = np.cumsum(turned, axis=along, dtype=x.dtype)
    if bool(exclusive):
        y = np.roll(y, 1, axis=along)
        y[(slice(None),) * (along % x.ndim) + (slice(0, 1),)] = 0
    return np.asarray(np.flip(y, along) if bool(reverse) else y)
