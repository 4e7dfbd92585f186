"""Fitting the caller's batch to what an artifact accepts, and reals to integers: shared by all runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.package import Quantization, Tensor

Array = NDArray[Any]


def batch_of(tensors: Sequence[Tensor], inputs: Mapping[str, Array]) -> int | None:
    """The common batch size, or None when an input has no batch axis (then it is passed as it is).

    Raises:
        ValueError: inputs of different batch sizes.
    """
    if not tensors or not all(item.shape and item.shape[0] == -1 for item in tensors):
        return None
    sizes = {int(inputs[item.name].shape[0]) for item in tensors}
    if len(sizes) != 1:
        raise ValueError(f"inputs of one batch size were expected, not {sorted(sizes)}")
    return sizes.pop()


def run_in_pieces(
    inputs: Mapping[str, Array], n: int, size: int, run: Callable[[dict[str, Array]], dict[str, Array]]
) -> dict[str, Array]:
    """Compute a batch of `n` with an artifact that takes exactly `size` samples at a time.

    The last piece is filled up by repeating its last sample; the surplus results are dropped.
    """
    pieces: list[dict[str, Array]] = []
    for start in range(0, n, size):
        piece = {name: array[start : start + size] for name, array in inputs.items()}
        missing = size - min(size, n - start)
        if missing:
            piece = {name: np.concatenate([a, np.repeat(a[-1:], missing, 0)]) for name, a in piece.items()}
        pieces.append(run(piece))
    if len(pieces) == 1 and size == n:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces])[:n] for name in pieces[0]}


def to_artifact(array: Array, dtype: np.dtype[Any], quantization: Quantization | None) -> Array:
    """An input in the contract's dtype as the artifact wants it, contiguous.

    Reals become integers by ``round(x / scale) + zero_point``, saturated to the artifact's dtype.
    """
    if quantization is None or array.dtype == dtype:
        return np.ascontiguousarray(array, dtype=dtype)
    limits = np.iinfo(dtype)
    steps = np.rint(array / np.float32(quantization.scale)) + quantization.zero_point
    return np.ascontiguousarray(np.clip(steps, limits.min, limits.max), dtype=dtype)


def from_artifact(array: Array, dtype: np.dtype[Any], quantization: Quantization | None) -> Array:
    """An output of the artifact in the contract's dtype: ``scale · (q − zero_point)`` where quantized."""
    if quantization is None or array.dtype == dtype:
        return array.astype(dtype, copy=False)
    reals = (array.astype(np.float32) - quantization.zero_point) * np.float32(quantization.scale)
    return reals.astype(dtype, copy=False)


def tensor_not_found(tensor: Tensor, there: Sequence[str], where: str) -> str:
    """What to say when an artifact has no tensor of that name."""
    return f"{where} has no tensor {tensor.artifact_name or tensor.name!r}; it has {', '.join(there)}"


__all__ = [
    "Array",
    "batch_of",
    "from_artifact",
    "run_in_pieces",
    "tensor_not_found",
    "to_artifact",
]
