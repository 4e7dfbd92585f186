"""Windows that slide over space: kernel, strides, dilations and padding, and how TFLite can say them.

TFLite knows two paddings: VALID (none) and SAME (as much as makes the output ceil(input / stride), the
odd element at the end). Everything else is an explicit PAD before the op.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub import nodes
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.tensors import Shape, Tensor

SAME, VALID = 0, 1


@dataclass(frozen=True)
class Window:
    """One entry a spatial axis. `same` is what ``auto_pad`` says where the sizes are unknown."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    same: bool = False

    @property
    def extent(self) -> tuple[int, ...]:
        """Size of the dilated kernel."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.before) or any(self.after)


def window(node: ir.Node, kernel: Sequence[int], sizes: Shape) -> Window:
    """The window of a Conv or pool over an input with spatial `sizes`.

    Raises:
        Refusal: SAME_LOWER over a size that is not known.
    """
    rank = len(kernel)
    strides = nodes.attr_ints(node, "strides") or (1,) * rank
    dilations = nodes.attr_ints(node, "dilations") or (1,) * rank
    auto = nodes.attr_str(node, "auto_pad", "NOTSET")
    pads = nodes.attr_ints(node, "pads") or (0,) * (2 * rank)
    base = Window(tuple(kernel), strides, dilations, pads[:rank], pads[rank:])
    if auto == "NOTSET":
        return base
    if auto == "VALID":
        return Window(base.kernel, strides, dilations, (0,) * rank, (0,) * rank)
    totals = [_same_total(size, s, e) for size, s, e in zip(sizes, strides, base.extent, strict=True)]
    if None in totals:
        if auto == "SAME_LOWER":
            nodes.refuse(node, "SAME_LOWER over a size known only at run time", code="dynamic_shape")
        return Window(base.kernel, strides, dilations, (0,) * rank, (0,) * rank, same=True)
    small = tuple(total // 2 for total in totals if total is not None)
    large = tuple(total - total // 2 for total in totals if total is not None)
    before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    return Window(base.kernel, strides, dilations, before, after)


def _same_total(size: int | None, stride: int, extent: int) -> int | None:
    return None if size is None else max((-(-size // stride) - 1) * stride + extent - size, 0)


def padding(win: Window, sizes: Shape, outputs: Shape) -> int | None:
    """SAME or VALID where TFLite computes the same windows with it, else None (a PAD is needed).

    Padding at the end that no window reaches does not count.
    """
    if win.same:
        return SAME
    if not any(win.before) and not any(_reached(win, sizes, outputs)):
        return VALID
    for axis, size in enumerate(sizes):
        total = _same_total(size, win.strides[axis], win.extent[axis])
        if size is None or total is None or outputs[axis] != -(-size // win.strides[axis]):
            return None
        if win.before[axis] != total // 2:
            return None
    return SAME


def _reached(win: Window, sizes: Shape, outputs: Shape) -> list[int]:
    """Elements of the end padding that some window reads, per axis."""
    result = []
    for axis, (size, out) in enumerate(zip(sizes, outputs, strict=True)):
        if size is None or out is None:
            result.append(win.after[axis])
        else:
            end = (out - 1) * win.strides[axis] + win.extent[axis] - win.before[axis]
            result.append(max(end - size, 0))
    return result


def explicit(win: Window, sizes: Shape, outputs: Shape) -> list[tuple[int, int]]:
    """Padding to write out per spatial axis: never more at the end than a window reads."""
    return list(zip(win.before, _reached(win, sizes, outputs), strict=True))


def pad(
    ctx: Context, tensor: Tensor, amounts: Sequence[tuple[int, int]], value: float | None = None
) -> Tensor:
    """`tensor` (N, spatial axes, C) with its spatial axes padded by zeros, or by `value` (PADV2)."""
    rows = [(0, 0), *amounts, (0, 0)]
    if not any(before or after for before, after in rows):
        return tensor
    shape = tuple(
        None if size is None else size + before + after
        for size, (before, after) in zip(tensor.shape, rows, strict=True)
    )
    paddings = ctx.ints(np.array(rows))
    if value is None:
        return ctx.emit("PAD", [tensor, paddings], tensor.spec(shape))
    filler = ctx.filler(value, tensor)
    return ctx.emit("PADV2", [tensor, paddings, filler], tensor.spec(shape))


def lift(ctx: Context, tensor: Tensor) -> Tensor:
    """(N, L, C) as an image of one row: (N, 1, L, C). Images stay as they are."""
    if tensor.rank != 3:
        return tensor
    return ctx.reshape(tensor, (tensor.shape[0], 1, *tensor.shape[1:]))


def lift_kernel(ctx: Context, tensor: Tensor) -> Tensor:
    """(O, K, I) as a kernel of one row: (O, 1, K, I)."""
    return ctx.reshape(tensor, (tensor.shape[0], 1, *tensor.shape[1:])) if tensor.rank == 3 else tensor


def lifted(shape: Shape) -> Shape:
    """Shape of `lift`'s result."""
    return (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape


def rows(values: Sequence[int], one: int = 1) -> tuple[int, ...]:
    """Per-axis numbers of a window, with an entry for the row that `lift` adds."""
    return (one, *values) if len(values) == 1 else tuple(values)
