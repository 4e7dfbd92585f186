"""Rewrites of ops that only place values elsewhere: slices, joins and reshapes of the same elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgekit_converters.targets.tflite.lower.emitter import Emitter
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor, known

Fields = dict[str, Any]
Rewrite = Callable[[Emitter, list[Tensor | None], list[Spec], Fields], list[Tensor] | None]
_PIECES = 512
"""More slices than this are no reasonable form of a gather."""
_FEW = 4


def pad(e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields) -> list[Tensor] | None:
    """Joined with rows of the filler: int8 zeros are the zero point, which some runtimes forget."""
    tensor, widths = _data(inputs, 0), e.value(inputs[1])
    if widths is None or known(tensor.shape) is None:
        return None
    filler = e.value(inputs[2]) if len(inputs) > 2 else _zero(tensor)
    if filler is None:
        return None
    for axis, (before, after) in enumerate(widths.reshape(-1, 2)):
        tensor = _between(e, tensor, axis, (int(before), int(after)), filler)
    return [tensor]


def _zero(tensor: Tensor) -> np.ndarray:
    value = 0 if tensor.quant is None else tensor.quant.zero_point[0]
    return np.array(value, tensor.dtype.numpy())


def _between(e: Emitter, tensor: Tensor, axis: int, widths: tuple[int, int], filler: np.ndarray) -> Tensor:
    """`tensor` between so many rows of the filler."""

    def rows(count: int) -> list[Tensor]:
        shape = _sized(tensor, axis, count)
        return [e.const(np.full(shape, filler, tensor.dtype.numpy()), quant=tensor.quant)] if count else []

    return joined(e, [*rows(widths[0]), tensor, *rows(widths[1])], axis)


def mirror(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Gathered, each axis by its reflected places."""
    tensor, widths = _data(inputs, 0), e.value(inputs[1])
    if widths is None or known(tensor.shape) is None:
        return None
    mode = "symmetric" if fields.get("mode") else "reflect"
    for axis, (before, after) in enumerate(widths.reshape(-1, 2)):
        if before or after:
            places = np.pad(np.arange(tensor.shape[axis] or 0), (int(before), int(after)), mode=mode)  # type: ignore[call-overload]
            tensor = _taken(e, tensor, axis, places)
    return [tensor]


def gather(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Known places: runs of neighbours are slices, joined."""
    tensor, places, axis = _data(inputs, 0), e.value(inputs[1]), int(fields.get("axis", 0))
    if places is None or fields.get("batchDims") or known(tensor.shape) is None:
        return None
    flat = places.reshape(-1)
    if len(flat) == 0 or len(_runs(flat)) > _PIECES:
        return None
    return [e.reshape(_taken(e, tensor, axis % tensor.rank, flat), outputs[0].shape)]


def _taken(e: Emitter, tensor: Tensor, axis: int, places: np.ndarray) -> Tensor:
    return joined(e, [cut(e, tensor, axis, start, count) for start, count in _runs(places)], axis)


def _runs(places: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of neighbours that follow each other."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    return [(int(part[0]), len(part)) for part in np.split(places, breaks)]


def split(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """One slice a part. SPLIT names the axis first, SPLIT_V last."""
    first = len(inputs) == 2
    tensor, axis = _data(inputs, 1 if first else 0), e.value(inputs[0 if first else 2])
    if axis is None or known(tensor.shape) is None:
        return None
    place, start, made = int(axis.reshape(-1)[0]) % tensor.rank, 0, []
    for spec in outputs:
        count = spec.shape[place]
        if count is None:
            return None
        made.append(cut(e, tensor, place, start, count))
        start += count
    return made


def pack(e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields) -> list[Tensor] | None:
    """Each with an axis of one, joined."""
    axis = int(fields["axis"]) % len(outputs[0].shape)
    shape = (*outputs[0].shape[:axis], 1, *outputs[0].shape[axis + 1 :])
    return [joined(e, [e.reshape(item, shape) for item in inputs if item is not None], axis)]


def unpack(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Slices without their axis."""
    tensor = _data(inputs, 0)
    axis = int(fields["axis"]) % tensor.rank
    return [e.reshape(cut(e, tensor, axis, i, 1), spec.shape) for i, spec in enumerate(outputs)]


def reshape(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Axes of one put in or left out."""
    return [e.reshape(_data(inputs, 0), outputs[0].shape)] if known(outputs[0].shape) else None


def sliced(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Where one axis is cut, on three axes: what stands before it, it, and what comes after."""
    tensor, starts = _data(inputs, 0), e.value(inputs[1])
    old, new = known(tensor.shape), known(outputs[0].shape)
    if starts is None or old is None or new is None or len(old) <= _FEW:
        return None
    axes = [axis for axis, size in enumerate(old) if size != new[axis]]
    if len(axes) != 1:
        return None
    axis = axes[0]
    flat = e.reshape(tensor, (int(np.prod(old[:axis])), old[axis], int(np.prod(old[axis + 1 :]))))
    return [e.reshape(cut(e, flat, 1, int(starts[axis]), new[axis]), new)]


def reverse(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """A slice that walks backwards."""
    tensor, axes, shape = _data(inputs, 0), e.value(inputs[1]), known(outputs[0].shape)
    if axes is None or shape is None:
        return None
    back = {int(axis) % tensor.rank for axis in axes.reshape(-1)}
    starts = [size - 1 if axis in back else 0 for axis, size in enumerate(shape)]
    ends = [-size - 1 if axis in back else size for axis, size in enumerate(shape)]
    steps = [-1 if axis in back else 1 for axis in range(tensor.rank)]
    return [e.emit("STRIDED_SLICE", [tensor, e.ints(starts), e.ints(ends), e.ints(steps)], outputs[0])]


def tile(e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields) -> list[Tensor] | None:
    """Copies joined. For BROADCAST_TO too: what is to be repeated follows from the shapes."""
    tensor, shape = _data(inputs, 0), known(outputs[0].shape)
    if shape is None or known(tensor.shape) is None or 0 in shape:
        return None
    tensor = e.reshape(tensor, (1,) * (len(shape) - tensor.rank) + tensor.shape)
    counts = [size // (old or 1) for size, old in zip(shape, tensor.shape, strict=True)]
    if sum(counts) > _PIECES:
        return None
    for axis, count in enumerate(counts):
        tensor = joined(e, [tensor] * count, axis)
    return [tensor]


def depth_to_space(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """Four axes are enough: rows of a block lie beside each other once its lines are moved."""
    tensor, block = _data(inputs, 0), int(fields["blockSize"])
    shape = known(tensor.shape)
    if shape is None:
        return None
    n, h, w, c = shape
    return _lines_swapped(e, tensor, (n * h, w, block, c // block), outputs[0])


def space_to_depth(
    e: Emitter, inputs: list[Tensor | None], outputs: list[Spec], fields: Fields
) -> list[Tensor] | None:
    """The way back."""
    tensor, block = _data(inputs, 0), int(fields["blockSize"])
    shape = known(tensor.shape)
    if shape is None:
        return None
    n, h, w, c = shape
    return _lines_swapped(e, tensor, (n * h // block, block, w // block, block * c), outputs[0])


def _lines_swapped(e: Emitter, tensor: Tensor, lines: tuple[int, ...], output: Spec) -> list[Tensor]:
    return [e.reshape(e.transpose(e.reshape(tensor, lines), (0, 2, 1, 3)), output.shape)]


def cut(e: Emitter, tensor: Tensor, axis: int, start: int, count: int) -> Tensor:
    """`count` rows along one axis of a tensor of known sizes."""
    if start == 0 and count == tensor.shape[axis]:
        return tensor
    starts = [start if place == axis else 0 for place in range(tensor.rank)]
    sizes = _sized(tensor, axis, count)
    return e.emit("SLICE", [tensor, e.ints(starts), e.ints(sizes)], tensor.spec(sizes))


def joined(e: Emitter, pieces: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenation of tensors of one scale and known sizes."""
    if len(pieces) == 1:
        return pieces[0]
    total = sum(piece.shape[axis] or 0 for piece in pieces)
    like = next((piece for piece in pieces if not piece.is_constant), pieces[0])
    return e.emit("CONCATENATION", pieces, like.spec(_sized(like, axis, total)), axis=axis)


def _sized(tensor: Tensor, axis: int, size: int) -> tuple[int, ...]:
    return tuple(size if place == axis else (old or 0) for place, old in enumerate(tensor.shape))


def _data(inputs: Sequence[Tensor | None], place: int) -> Tensor:
    found = inputs[place]
    assert found is not None
    return found


REWRITES: dict[str, Rewrite] = {
    "PAD": pad,
    "PADV2": pad,
    "MIRROR_PAD": mirror,
    "GATHER": gather,
    "SPLIT": split,
    "SPLIT_V": split,
    "PACK": pack,
    "UNPACK": unpack,
    "EXPAND_DIMS": reshape,
    "SQUEEZE": reshape,
    "SLICE": sliced,
    "REVERSE_V2": reverse,
    "TILE": tile,
    "BROADCAST_TO": tile,
    "DEPTH_TO_SPACE": depth_to_space,
    "SPACE_TO_DEPTH": space_to_depth,
}
