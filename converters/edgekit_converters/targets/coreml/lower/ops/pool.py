"""Pooling. Specification: onnx/docs/Operators.md; MIL's `max_pool` and `avg_pool`.

`ceil_mode` becomes padding at the end (never a window that lies wholly in it), so that MIL's own rule for
it does not matter. Dilated windows are the extreme, or the mean, over strided slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.targets.coreml.lower.node import Node, Var, as_float, choose, is_float
from edgekit_converters.targets.coreml.lower.ops.conv import padding, pairs
from edgekit_converters.targets.coreml.lower.registry import lowers


class Window:
    """A pooling window: sizes per spatial axis, and the pads with the end that `ceil_mode` asks for."""

    def __init__(self, node: Node) -> None:
        self.kernel = node.integers("kernel_shape") or []
        self.spatial = len(self.kernel)
        if not 1 <= self.spatial <= 3:
            node.refuse(f"{self.spatial} spatial axes")
        self.strides = node.integers("strides") or [1] * self.spatial
        self.dilations = node.integers("dilations") or [1] * self.spatial
        self.pads = padding(node, self.spatial)
        self.begin, self.end = self.pads[: self.spatial], self.pads[self.spatial :]
        self.ceil = bool(node.integer("ceil_mode"))
        self.extra = self._extra(node) if self.ceil else [0] * self.spatial
        self.dilated = max(self.dilations) > 1

    def _extra(self, node: Node) -> list[int]:
        """How much further than the end's pad the last windows reach."""
        found = []
        for i, size in enumerate(node.shape()[2:]):
            reach = (self.kernel[i] - 1) * self.dilations[i] + 1
            span = size + self.begin[i] + self.end[i] - reach
            count = -(-span // self.strides[i]) + 1
            if (count - 1) * self.strides[i] >= size + self.begin[i]:
                count -= 1
            found.append((count - 1) * self.strides[i] + reach - size - self.begin[i] - self.end[i])
        return found

    def custom(self, begin: list[int], end: list[int]) -> dict[str, Any]:
        """MIL's parameters for these pads; an end may be below zero, where the rest is not looked at."""
        ends = [max(p, 0) for p in end]
        pads = {"pad_type": "custom", "pad": pairs([*begin, *ends])}
        none = not any(begin) and not any(ends)
        shared = {"kernel_sizes": self.kernel, "strides": self.strides}
        return {**shared, **({"pad_type": "valid"} if none else pads)}

    def slices(self, node: Node, x: Var) -> Iterator[Var]:
        """For each place of the window, what it sees, of `x` that is padded already."""
        sizes = node.sizes(x)[2:]
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        counts = [(size - r) // s + 1 for size, r, s in zip(sizes, reach, self.strides, strict=True)]
        for place in product(*(range(k) for k in self.kernel)):
            begin = [p * d for p, d in zip(place, self.dilations, strict=True)]
            end = [b + (n - 1) * s + 1 for b, n, s in zip(begin, counts, self.strides, strict=True)]
            yield mb.slice_by_index(
                x=x,
                begin=[0, 0, *begin],
                end=[0, 0, *end],
                stride=[1, 1, *self.strides],
                end_mask=[True, True, *([False] * self.spatial)],
            )


def _padded(window: Window, x: Var, fill: float) -> Var:
    ends = [p + e for p, e in zip(window.end, window.extra, strict=True)]
    if min(ends) < 0:
        sizes = [*x.shape]
        keep = [size + min(e, 0) for size, e in zip(sizes[2:], ends, strict=True)]
        mask = [True, True, *([False] * window.spatial)]
        x = mb.slice_by_index(x=x, begin=[0] * len(sizes), end=[0, 0, *keep], end_mask=mask)
        ends = [max(e, 0) for e in ends]
    if not any(window.begin) and not any(ends):
        return x
    pads = pairs([0, 0, *window.begin, 0, 0, *ends])
    return mb.pad(x=x, pad=pads, mode="constant", constant_val=np.float32(fill))


@lowers("MaxPool")
def _max_pool(node: Node) -> Any:
    x, window = node.var(0), Window(node)
    if not is_float(x):
        if node.width() is None or (node.width() or (64,))[0] > 16:
            node.refuse("of wide whole numbers", "unsupported_type")
        return [mb.cast(x=_max(node, as_float(x), window), dtype="int32")]
    if node.used(1):
        return _max_with_places(node, x, window)
    return [_max(node, x, window)]


def _max(node: Node, x: Var, window: Window) -> Var:
    if window.dilated:
        found = None
        for part in window.slices(node, _padded(window, x, -np.inf)):
            found = part if found is None else mb.maximum(x=found, y=part)
        return found
    ends = [p + e for p, e in zip(window.end, window.extra, strict=True)]
    return mb.max_pool(x=x, **window.custom(window.begin, ends))


def _max_with_places(node: Node, x: Var, window: Window) -> list[Var]:
    """The extreme and its place in the whole tensor, the first one winning."""
    shape = node.shape()
    numbers = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    if node.integer("storage_order"):  # the last axis is the slowest
        turned = [*shape[:2], *reversed(shape[2:])]
        numbers = numbers.reshape(turned).transpose(0, 1, *range(len(shape) - 1, 1, -1))
    if numbers.size >= 1 << 24:
        node.refuse("places beyond 2^24")
    places = _padded(window, mb.const(val=np.ascontiguousarray(numbers, np.float32)), -1)
    found = where = None
    for part, place in zip(
        window.slices(node, _padded(window, x, -np.inf)), window.slices(node, places), strict=True
    ):
        if found is None:
            found, where = part, place
            continue
        better = mb.logical_or(
            x=mb.greater(x=part, y=found),
            y=mb.logical_and(
                x=mb.less(x=where, y=np.float32(0)), y=mb.greater_equal(x=place, y=np.float32(0))
            ),
        )
        found, where = choose(better, part, found), choose(better, place, where)
    return [found, mb.cast(x=where, dtype="int32")]


@lowers("AveragePool")
def _average_pool(node: Node) -> Var:
    x, window = node.var(0), Window(node)
    counted = bool(node.integer("count_include_pad"))
    if window.dilated:
        return _dilated_mean(node, x, window, counted)
    ends = [p + e for p, e in zip(window.end, window.extra, strict=True)]
    if not counted:
        options = window.custom(window.begin, ends)
        return mb.avg_pool(x=x, **options, exclude_padding_from_average=True)
    if not any(window.extra):
        options = window.custom(window.begin, window.end)
        return mb.avg_pool(x=x, **options, exclude_padding_from_average=False)
    if any(window.pads):
        x = mb.pad(
            x=x,
            pad=pairs([0, 0, *window.begin, 0, 0, *window.end]),
            mode="constant",
            constant_val=np.float32(0),
        )
    options = window.custom([0] * window.spatial, window.extra)
    return mb.avg_pool(x=x, **options, exclude_padding_from_average=True)


def _dilated_mean(node: Node, x: Var, window: Window, counted: bool) -> Var:
    total = None
    for part in window.slices(node, _padded(window, x, 0)):
        total = part if total is None else mb.add(x=total, y=part)
    return mb.real_div(x=total, y=_counts(node, window, counted))


def _counts(node: Node, window: Window, counted: bool) -> Any:
    """How many elements each window's mean is over."""
    result = np.ones((), np.float32)
    for i, size in enumerate(node.shape()[2:]):
        low, high = (-window.begin[i], size + window.end[i]) if counted else (0, size)
        total = size + window.begin[i] + window.end[i] + window.extra[i]
        reach = (window.kernel[i] - 1) * window.dilations[i] + 1
        starts = np.arange((total - reach) // window.strides[i] + 1) * window.strides[i] - window.begin[i]
        seen = starts[:, None] + np.arange(window.kernel[i]) * window.dilations[i]
        result = np.multiply.outer(result, ((seen >= low) & (seen < high)).sum(axis=1))
    return result.astype(np.float32)[None, None]


@lowers("GlobalAveragePool", "GlobalMaxPool")
def _global(node: Node) -> Var:
    x = node.var(0)
    function = mb.reduce_mean if node.op == "GlobalAveragePool" else mb.reduce_max
    return function(x=x, axes=list(range(2, x.rank)), keep_dims=True)


@lowers("LpPool")
def _lp_pool(node: Node) -> Var:
    """The mean of powers over the padded window, times its size: the sum."""
    x, window, p = node.var(0), Window(node), node.integer("p", 2)
    power = mb.pow(x=mb.abs(x=x), y=np.float32(p))
    if window.dilated or min(e + x for e, x in zip(window.end, window.extra, strict=True)) < 0:
        total = None
        for part in window.slices(node, _padded(window, power, 0)):
            total = part if total is None else mb.add(x=total, y=part)
    else:
        ends = [e + x for e, x in zip(window.end, window.extra, strict=True)]
        mean = mb.avg_pool(x=power, **window.custom(window.begin, ends), exclude_padding_from_average=False)
        total = mb.mul(x=mean, y=np.float32(np.prod(window.kernel)))
    return mb.pow(x=total, y=np.float32(1 / p))


@lowers("GlobalLpPool")
def _global_lp(node: Node) -> Var:
    x, p = node.var(0), node.integer("p", 2)
    power = mb.pow(x=mb.abs(x=x), y=np.float32(p))
    total = mb.reduce_sum(x=power, axes=list(range(2, x.rank)), keep_dims=True)
    return mb.pow(x=total, y=np.float32(1 / p))
