"""Pools in simpler windows: no pads, no dilations, no rounding up, two axes of pixels.

Only nodes that a lowering does not accept come here. Specification: Operators.md, AveragePool 19,
MaxPool 12, LpPool 18, MaxUnpool 11. Sizes of the pixels' axes must be known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    Array,
    attr_int,
    attr_ints,
    dims,
    ints,
    numpy_dtype,
    operand,
    required,
    static_shape,
    used_outputs,
)


@dataclass(frozen=True)
class Window:
    """One axis of a pool: sizes before and after, kernel, stride, dilation, pads at the begin and the end."""

    old: int
    new: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def reach(self) -> int:
        """What the windows span together."""
        return (self.new - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    @property
    def plain(self) -> bool:
        """Neither padded nor dilated, and no window reaches over the end."""
        return not self.begin and self.dilation == 1 and self.reach <= self.old

    def starts(self) -> Array:
        """Where each window's elements lie, (new, kernel), counted in the unpadded axis."""
        steps = np.arange(self.new, dtype=np.int64)[:, None] * self.stride - self.begin
        return steps + np.arange(self.kernel, dtype=np.int64)[None, :] * self.dilation


def windows_of(node: ir.Node) -> list[Window] | None:
    """The windows of a pool in its normal form; None when a size is not known."""
    sizes, kernel, pads = dims(required(node, 0)), attr_ints(node, "kernel_shape"), attr_ints(node, "pads")
    if sizes is None or kernel is None or pads is None or any(size is None for size in sizes[2:]):
        return None
    count = len(kernel)
    strides = attr_ints(node, "strides") or (1,) * count
    dilations = attr_ints(node, "dilations") or (1,) * count
    found = []
    for index, old in enumerate(size for size in sizes[2:] if size is not None):
        begin, end = pads[index], pads[index + count]
        over = old + begin + end - ((kernel[index] - 1) * dilations[index] + 1)
        if over < 0:
            # Wider than its image: what that means, runtimes do not agree on.
            return None
        new = over // strides[index] + 1
        if attr_int(node, "ceil_mode"):
            new = -(-over // strides[index]) + 1
            # A window must begin inside of the image or its pad at the begin.
            new -= (new - 1) * strides[index] >= old + begin
        found.append(Window(old, new, kernel[index], strides[index], dilations[index], begin, end))
    return found


def padded(b: Builder, x: ir.Value, windows: Sequence[Window], value: float) -> ir.Value:
    """`x` with everything that the windows reach for; elements behind the last window stay."""
    begins = [w.begin for w in windows]
    ends = [max(w.reach - w.old - w.begin, 0) for w in windows]
    if not any(begins) and not any(ends):
        return x
    edge = b.const(np.asarray(value).astype(numpy_dtype(x)))
    return b("Pad", x, [0, 0, *begins, 0, 0, *ends], edge)


def _plain_pool(b: Builder, kind: str, x: ir.Value, windows: Sequence[Window]) -> ir.Value:
    """A pool without pads and dilations."""
    zeros, ones = [0] * (2 * len(windows)), [1] * len(windows)
    kernel, strides = [w.kernel for w in windows], [w.stride for w in windows]
    return b(kind, x, kernel_shape=kernel, strides=strides, pads=zeros, dilations=ones)


def _slices(b: Builder, x: ir.Value, windows: Sequence[Window]) -> list[ir.Value]:
    """For each place in the kernel what lies there under every window."""
    found = []
    for place in itertools.product(*(range(w.kernel) for w in windows)):
        starts = [step * w.dilation for step, w in zip(place, windows, strict=True)]
        ends = [start + (w.new - 1) * w.stride + 1 for start, w in zip(starts, windows, strict=True)]
        axes, strides = list(range(2, 2 + len(windows))), [w.stride for w in windows]
        found.append(b("Slice", x, starts, ends, axes, strides))
    return found


def _sum(b: Builder, x: ir.Value, windows: Sequence[Window]) -> ir.Value:
    """Sums under the windows of a padded image."""
    if all(w.dilation == 1 for w in windows) and len(windows) <= 2:
        return b(
            "Mul", _plain_pool(b, "AveragePool", x, windows), float(math.prod(w.kernel for w in windows))
        )
    parts = _slices(b, x, windows)
    found = parts[0]
    for part in parts[1:]:
        found = b("Add", found, part)
    return found


def _counts(windows: Sequence[Window], *, pads_too: bool) -> Array:
    """How many elements count under each window."""
    found = np.ones((1, 1))
    for window in windows:
        places = window.starts()
        low, high = (-window.begin, window.old + window.end) if pads_too else (0, window.old)
        line = ((places >= low) & (places < high)).sum(1).astype(np.float64)
        found = found[..., None] * line
    return found


@rule("AveragePool")
def average_pool(node: ir.Node, b: Builder) -> Result:
    """Sums over counts, the counts a constant."""
    x, windows = required(node, 0), windows_of(node)
    if windows is None:
        return None
    if all(w.plain for w in windows):
        return _fewer_axes(node, b, windows)
    counts = _counts(windows, pads_too=attr_int(node, "count_include_pad") == 1)
    whole = _sum(b, padded(b, x, windows, 0.0), windows)
    return b("Div", whole, b.const(np.maximum(counts, 1).astype(numpy_dtype(x))))


@rule("LpPool")
def lp_pool(node: ir.Node, b: Builder) -> Result:
    """The root of the sum of powers."""
    x, windows, p = required(node, 0), windows_of(node), attr_int(node, "p", 2)
    if windows is None:
        return None
    a = b("Abs", x)
    powers = a if p == 1 else b("Mul", x, x) if p == 2 else b("Pow", a, float(p))
    whole = _sum(b, padded(b, powers, windows, 0.0), windows)
    return whole if p == 1 else b("Sqrt", whole) if p == 2 else b("Pow", whole, 1 / p)


@rule("MaxPool")
def max_pool(node: ir.Node, b: Builder) -> Result:
    """The largest of slices; pads are lower than anything."""
    x, windows = required(node, 0), windows_of(node)
    if windows is None:
        return None
    kind = numpy_dtype(x)
    lowest = -math.inf if kind.kind not in "iu" else float(np.iinfo(kind).min)
    if len(node.outputs) > 1 and used_outputs(node)[1]:
        return _with_places(node, b, windows, lowest)
    if all(w.plain for w in windows):
        return _fewer_axes(node, b, windows)
    ready = padded(b, x, windows, lowest)
    if all(w.dilation == 1 for w in windows):
        return _plain_pool(b, "MaxPool", ready, windows)
    parts = _slices(b, ready, windows)
    found = parts[0]
    for part in parts[1:]:
        found = b("Max", found, part)
    return found


def _with_places(node: ir.Node, b: Builder, windows: Sequence[Window], lowest: float) -> Result:
    """Also where the largest element lies in the flattened tensor."""
    x = required(node, 0)
    sizes = static_shape(x)
    if sizes is None:
        return None
    parts = _slices(b, padded(b, x, windows, lowest), windows)
    stacked = b("Concat", *(b("Unsqueeze", part, [0]) for part in parts), axis=0)
    best = b("ArgMax", stacked, axis=0, keepdims=0)
    order = list(range(len(windows)))
    if attr_int(node, "storage_order"):
        order.reverse()
    # The place in the image is a table's entry for (place in the kernel) plus one for (window).
    steps = {axis: math.prod(windows[a].old for a in order[order.index(axis) + 1 :]) for axis in order}
    table = [
        sum(
            step * w.dilation * steps[axis] for axis, (step, w) in enumerate(zip(place, windows, strict=True))
        )
        for place in itertools.product(*(range(w.kernel) for w in windows))
    ]
    base: Array = np.arange(sizes[0] * sizes[1], dtype=np.int64) * math.prod(sizes[2:])
    base = base.reshape(sizes[0], sizes[1])
    for axis, window in enumerate(windows):
        base = base[..., None] + window.starts()[:, 0] * steps[axis]
    places = b("Add", b("Gather", b.const(np.asarray(table, np.int64)), best, axis=0), b.const(base))
    return [b("ReduceMax", stacked, [0], keepdims=0), places]


def _fewer_axes(node: ir.Node, b: Builder, windows: Sequence[Window]) -> Result:
    """One axis of pixels as two, three as two and then one."""
    x, kind = required(node, 0), node.op_type
    if len(windows) == 1:
        flat = Window(1, 1, 1, 1, 1, 0, 0)
        wide = _plain_pool(b, kind, b("Unsqueeze", x, [2]), [flat, windows[0]])
        return b("Squeeze", wide, [2])
    sizes = static_shape(x)
    if len(windows) != 3 or sizes is None:
        return None
    n, c, depth, height, width = sizes
    plane = _plain_pool(b, kind, b.reshape(x, n, c * depth, height, width), windows[1:])
    rest = [w.new for w in windows[1:]]
    column = b.reshape(plane, n, c, depth, math.prod(rest))
    flat = Window(math.prod(rest), math.prod(rest), 1, 1, 1, 0, 0)
    return b.reshape(_plain_pool(b, kind, column, [windows[0], flat]), n, c, windows[0].new, *rest)


@rule("MaxUnpool")
def max_unpool(node: ir.Node, b: Builder) -> Result:
    """The elements back to their places, zeros elsewhere."""
    x, places, wanted = required(node, 0), required(node, 1), ints(operand(node, 2))
    sizes, kernel = static_shape(x), attr_ints(node, "kernel_shape")
    if sizes is None or kernel is None or (wanted is None and operand(node, 2) is not None):
        return None
    count = len(kernel)
    strides, pads = attr_ints(node, "strides") or (1,) * count, attr_ints(node, "pads") or (0,) * (2 * count)
    own = [
        (size - 1) * strides[i] + kernel[i] - pads[i] - pads[i + count] for i, size in enumerate(sizes[2:])
    ]
    if wanted is not None and tuple(wanted) != (*sizes[:2], *own):
        return None
    empty = b.const(np.zeros(math.prod(sizes[:2]) * math.prod(own), numpy_dtype(x)))
    flat = b("ScatterND", empty, b.reshape(places, -1, 1), b.reshape(x, -1))
    return b.reshape(flat, *sizes[:2], *own)
