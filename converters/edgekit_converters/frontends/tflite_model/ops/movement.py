"""Padding, slices, gathers, and blocks of space moved to depth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.reader import Op

_FIRST = (0, 3, 1, 2)


def pad(g: Graph, op: Op) -> None:
    """PAD with zero (a real zero also for integers), PADV2 with a value."""
    amounts = g.constant(op, 1).astype(np.int64)
    turned = len(amounts) == 4
    if turned:
        amounts = amounts[list(_FIRST)]
    value = g.value(op.inputs[2]) if op.kind == "PADV2" else g.e.constant(0, np.float32)
    if op.kind == "PADV2":
        value = g.e.reshape(value, [])
    elif g.tensor(op.inputs[0]).scale is None and g.tensor(op.inputs[0]).dtype != np.float32:
        value = g.e.constant(0, g.tensor(op.inputs[0]).dtype)
    x = g.value(op.inputs[0], first=turned)
    made = g.e.op("Pad", x, g.e.constant(amounts.T.reshape(-1), np.int64), value)
    g.put(op.outputs[0], made, first=turned)


def mirror_pad(g: Graph, op: Op) -> None:
    """REFLECT leaves the border out; SYMMETRIC, which repeats it, is refused."""
    if int(g.option(op, "mode", 0)) != 0:
        raise g.refusal(op, "mirrors the border itself", "unsupported_attribute")
    amounts = g.constant(op, 1).astype(np.int64)
    made = g.e.op("Pad", g.value(op.inputs[0]), g.e.constant(amounts.T.reshape(-1)), mode="reflect")
    g.put(op.outputs[0], made)


def _sliced(g: Graph, op: Op, starts: list[int], ends: list[int], steps: list[int]) -> str:
    axes = list(range(len(starts)))
    given = [g.e.constant(item, np.int64) for item in (starts, ends, axes, steps)]
    return g.e.op("Slice", g.value(op.inputs[0]), *given)


def slice_(g: Graph, op: Op) -> None:
    """SLICE: begin and size; size -1 goes to the end. The whole batch stays whole."""
    begin, size = (g.constant(op, place).reshape(-1).tolist() for place in (1, 2))
    shape = g.tensor(op.inputs[0]).shape
    ends = [int(b + s) if s >= 0 else int(n) for b, s, n in zip(begin, size, shape, strict=True)]
    if g.free and begin[0] == 0 and ends[0] == shape[0]:
        ends[0] = np.iinfo(np.int64).max
    g.put(op.outputs[0], _sliced(g, op, [int(b) for b in begin], ends, [1] * len(shape)))


def strided_slice(g: Graph, op: Op) -> None:
    """Begin, end and step with masks; ellipsis and new axes are refused."""
    if g.option(op, "ellipsisMask") or g.option(op, "newAxisMask"):
        raise g.refusal(op, "adds axes while it slices", "unsupported_attribute")
    begin, end, steps = (g.constant(op, place).reshape(-1).tolist() for place in (1, 2, 3))
    masks = [int(g.option(op, name)) for name in ("beginMask", "endMask", "shrinkAxisMask")]
    most = np.iinfo(np.int64).max
    starts, ends = [], []
    for axis, (low, high, step) in enumerate(zip(begin, end, steps, strict=True)):
        bit = 1 << axis
        if masks[2] & bit:
            low, high, step = int(low), int(low) + 1 if low != -1 else most, 1
        starts.append((0 if step > 0 else most) if masks[0] & bit and not masks[2] & bit else int(low))
        ends.append((most if step > 0 else -most) if masks[1] & bit and not masks[2] & bit else int(high))
    steps = [1 if masks[2] & 1 << axis else int(step) for axis, step in enumerate(steps)]
    made = _sliced(g, op, starts, ends, steps)
    if masks[2]:
        if g.free and masks[2] & 1:
            raise g.refusal(op, "takes the batch axis away", "dynamic_shape")
        made = g.e.reshape(made, g.shape(op.outputs[0]))
    g.put(op.outputs[0], made)


def reverse(g: Graph, op: Op) -> None:
    """Constant axes, backwards."""
    rank = len(g.tensor(op.inputs[0]).shape)
    axes = [int(i) % rank for i in g.constant(op, 1).reshape(-1)]
    most = np.iinfo(np.int64).max
    given = [g.e.constant([value] * len(axes), np.int64) for value in (-1, -most)]
    steps = g.e.constant([-1] * len(axes), np.int64)
    made = g.e.op("Slice", g.value(op.inputs[0]), *given, g.e.constant(axes, np.int64), steps)
    g.put(op.outputs[0], made)


def gather(g: Graph, op: Op) -> None:
    """Along an axis; indices with a batch of their own are refused."""
    if int(g.option(op, "batchDims", 0)):
        raise g.refusal(op, "has batch dimensions", "unsupported_attribute")
    axis = int(g.option(op, "axis", 0)) % len(g.tensor(op.inputs[0]).shape)
    g.put(op.outputs[0], g.e.op("Gather", *(g.value(i) for i in op.inputs[:2]), axis=axis))


def gather_nd(g: Graph, op: Op) -> None:
    """By whole index tuples."""
    indices = g.e.cast(g.value(op.inputs[1]), np.int64)
    g.put(op.outputs[0], g.e.op("GatherND", g.value(op.inputs[0]), indices))


def _blocks(kind: str) -> Callable[[Graph, Op], None]:
    def write(g: Graph, op: Op) -> None:
        size = int(g.option(op, "blockSize", 1))
        extra = {"mode": "DCR"} if kind == "DepthToSpace" else {}
        made = g.e.op(kind, g.value(op.inputs[0], first=True), blocksize=size, **extra)
        g.put(op.outputs[0], made, first=True)

    return write


OPS: dict[str, Callable[[Graph, Op], None]] = {
    "DEPTH_TO_SPACE": _blocks("DepthToSpace"),
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "MIRROR_PAD": mirror_pad,
    "PAD": pad,
    "PADV2": pad,
    "REVERSE_V2": reverse,
    "SLICE": slice_,
    "SPACE_TO_DEPTH": _blocks("SpaceToDepth"),
    "STRIDED_SLICE": strided_slice,
}
