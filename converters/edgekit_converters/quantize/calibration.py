"""The one calibration: what every float tensor of a graph does on the calibration samples.

Per tensor: minimum, maximum and a histogram between them; per channel: both ends and the mean.
Constant scales and shifts are folded into weights first (`affine`), as every quantization does: the
tensors between them are never looked at. Tensors are looked at in parts that fit into a fixed budget of
memory; where all samples of a part do not fit, the samples are run twice, so that the histogram's ends
are exact either way. What is not finite is refused, with the tensor named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.errors import DataError
from edgekit_converters.npz import load_arrays
from edgekit_converters.quantize import affine
from edgekit_converters.quantize.running import BUDGET, chunks, float_tensors, runs
from edgekit_converters.quantize.statistics import BINS, Statistics, Tensor, save

_FROM_THE_END = frozenset({"MatMul", "Gemm"})


def calibrate(hub: Path, samples: Path, out: Path) -> Mapping[str, Any]:
    """Run the hub on the samples (npz by input name) and store the statistics.

    Returns:
        Facts: number of tensors and samples.

    Raises:
        DataError: a tensor of the graph is not finite on some sample.
    """
    model = ir.load(hub)
    affine.fold(model.graph)
    found = measure(model, load_arrays(samples))
    save(out, found)
    return {"tensors": len(found.tensors), "samples": found.samples}


def measure(model: ir.Model, inputs: Mapping[str, Any], names: Sequence[str] | None = None) -> Statistics:
    """Statistics of the float tensors `names` (all, inputs included, when None).

    Raises:
        DataError: a tensor is not finite on some sample.
    """
    samples = len(next(iter(inputs.values())))
    axes = channel_axes(model)
    tensors: dict[str, Tensor] = {}
    if names is None:
        tensors |= {
            name: _of(name, [value], axes.get(name))
            for name, value in inputs.items()
            if value.dtype == np.float32 and value.size and value.ndim
        }
    wanted = float_tensors(model) if names is None else list(names)
    for part, step in chunks(model, wanted):
        tensors |= _part(model, inputs, part, step, axes)
    return Statistics(tensors=tensors, samples=samples)


def channel_axes(model: ir.Model) -> dict[str, int]:
    """The axis of a tensor's channels: the last before a matrix product, else axis 1."""
    axes: dict[str, int] = {}
    for value in [*model.graph.inputs, *(item for node in model.graph for item in node.outputs)]:
        rank = len(value.shape) if value.shape is not None else 0
        if rank < 2:
            continue
        last = any(reader.op_type in _FROM_THE_END for reader in value.consumers())
        axes[str(value.name)] = rank - 1 if last else 1
    return axes


def _part(
    model: ir.Model, inputs: Mapping[str, Any], part: list[str], step: int, axes: Mapping[str, int]
) -> dict[str, Tensor]:
    """Statistics of one part, its values kept between the two looks when they fit."""
    kept: dict[str, list[Any]] = {name: [] for name in part}
    total = 0
    for values in runs(model, inputs, part, optimized=True, step=step):
        total += sum(item.nbytes for item in values.values())
        if total > BUDGET:
            kept.clear()
            return _part_in_two_runs(model, inputs, part, step, axes)
        for name, value in values.items():
            kept[name].append(value)
    return {name: _of(name, kept[name], axes.get(name)) for name in part if kept[name][0].size}


def _part_in_two_runs(
    model: ir.Model, inputs: Mapping[str, Any], part: list[str], step: int, axes: Mapping[str, int]
) -> dict[str, Tensor]:
    first: dict[str, Any] = {}
    for values in runs(model, inputs, part, optimized=True, step=step):
        for name, value in values.items():
            if value.size:
                first[name] = _merged(first.get(name), _look(name, value, axes.get(name)))
    counts = {name: np.zeros(BINS, np.int64) for name in first}
    for values in runs(model, inputs, part, optimized=True, step=step):
        for name in counts:
            counts[name] += histogram(values[name], first[name][0], first[name][1])
    return {name: _tensor(first[name], counts[name], axes.get(name)) for name in first}


def _of(name: str, values: Sequence[Any], axis: int | None) -> Tensor:
    look: Any = None
    for value in values:
        look = _merged(look, _look(name, value, axis))
    counts = sum((histogram(value, look[0], look[1]) for value in values), np.zeros(BINS, np.int64))
    return _tensor(look, counts, axis)


def _look(name: str, value: Any, axis: int | None) -> Any:
    """Minimum, maximum, the same per channel, sums and count of one step."""
    low, high = float(value.min()), float(value.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(
            f"tensor {name!r} is not finite on the calibration samples",
            where="calibration",
            remedy="look for samples of another scale, or a division by zero in the model",
            code="not_finite",
        )
    if axis is None or axis >= value.ndim:
        return low, high, None, None, None, 0
    others = tuple(i for i in range(value.ndim) if i != axis)
    sums = value.sum(axis=others, dtype=np.float64)
    return low, high, value.min(axis=others), value.max(axis=others), sums, value.size // value.shape[axis]


def _merged(first: Any, second: Any) -> Any:
    if first is None:
        return second
    low, high = min(first[0], second[0]), max(first[1], second[1])
    # Recurrent layers have the batch on axis 1, which a last short step shows: that is no channel.
    if first[2] is None or second[2] is None or first[2].shape != second[2].shape:
        return low, high, None, None, None, 0
    lows, highs = np.minimum(first[2], second[2]), np.maximum(first[3], second[3])
    return low, high, lows, highs, first[4] + second[4], first[5] + second[5]


def _tensor(look: Any, counts: Any, axis: int | None) -> Tensor:
    low, high, lows, highs, sums, count = look
    if lows is None:
        return Tensor(low=low, high=high, histogram=counts)
    means = sums / count
    return Tensor(low=low, high=high, histogram=counts, axis=axis, lows=lows, highs=highs, means=means)


def histogram(value: Any, low: float, high: float) -> Any:
    """Counts in `BINS` equal steps; the same as numpy's but several times faster."""
    span = high - low if high > low else 1.0
    place = ((value.reshape(-1) - np.float32(low)) * np.float32(BINS / span)).astype(np.int32)
    return np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS)
