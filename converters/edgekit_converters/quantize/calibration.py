"""The one calibration: what every float tensor of a graph does on the calibration samples.

Per tensor: minimum, maximum and a histogram between them; per channel: both ends and the mean.
Constant scales and shifts are folded into weights first (`affine`), as every quantization does: the
tensors between them are never looked at, nor is what a layer hands to its own Relu. Tensors are looked
at in parts that fit into a fixed budget of memory, in one run over the samples; ends and means are exact,
the histogram of a large tensor counts an evenly spread part of its values. What is not finite is
refused, with the tensor named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.errors import DataError
from edgekit_converters.npz import load_arrays
from edgekit_converters.quantize import affine
from edgekit_converters.quantize.roles import WEIGHTED
from edgekit_converters.quantize.running import chunks, float_tensors, runs
from edgekit_converters.quantize.statistics import BINS, Statistics, Tensor, save

_KEPT = 2**18
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
    inputs = load_arrays(samples)
    found = measure(model, inputs, without=merged(model))
    save(out, found)
    return {"tensors": len(found.tensors), "samples": found.samples}


def merged(model: ir.Model) -> dict[str, str]:
    """What a weighted or adding op hands to nothing but a Relu, and the op: few targets quantize it.

    Where one does, the tensor is measured then.
    """
    return {
        str(node.outputs[0].name): node.op_type
        for node in model.graph
        if node.op_type in (*WEIGHTED, "Add", "Sub", "Mul")
        and not node.outputs[0].is_graph_output()
        and [reader.op_type for reader in node.outputs[0].consumers()] == ["Relu"]
    }


def measure(
    model: ir.Model,
    inputs: Mapping[str, Any],
    names: Sequence[str] | None = None,
    *,
    without: Collection[str] = (),
) -> Statistics:
    """Statistics of the float tensors `names` (all, inputs included, when None), some left out.

    Raises:
        DataError: a tensor is not finite on some sample.
    """
    samples = len(next(iter(inputs.values())))
    axes = channel_axes(model)
    tensors: dict[str, Tensor] = {}
    if names is None:
        tensors |= {
            name: _tensor(_look(name, value, axes.get(name)), [_spread(value, samples)], axes.get(name))
            for name, value in inputs.items()
            if value.dtype == np.float32 and value.size and value.ndim
        }
    wanted = [name for name in (float_tensors(model) if names is None else names) if name not in without]
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
    """Statistics of one part."""
    samples = len(next(iter(inputs.values())))
    looks: dict[str, Any] = {}
    kept: dict[str, list[Any]] = {name: [] for name in part}
    for values in runs(model, inputs, part, optimized=True, step=step):
        for name, value in values.items():
            if value.size:
                looks[name] = _merged(looks.get(name), _look(name, value, axes.get(name)))
                kept[name].append(_spread(value, samples))
    return {name: _tensor(look, kept[name], axes.get(name)) for name, look in looks.items()}


def _spread(value: Any, samples: int) -> Any:
    """Values of one step, so many that all steps together keep no more than `_KEPT`."""
    rows = len(value) if value.ndim else 1
    total = value.size * max(1, samples // max(1, rows))
    # An odd stride meets every channel and column in turn.
    return value.reshape(-1)[:: max(1, total // _KEPT) | 1].copy()


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


def _tensor(look: Any, kept: Sequence[Any], axis: int | None) -> Tensor:
    low, high, lows, highs, sums, count = look
    counts = sum((histogram(part, low, high) for part in kept), np.zeros(BINS, np.int64))
    for end in {0, BINS - 1}:
        counts[end] = max(counts[end], 1)  # an end is there, whichever values were kept
    if lows is None:
        return Tensor(low=low, high=high, histogram=counts)
    means = sums / count
    return Tensor(low=low, high=high, histogram=counts, axis=axis, lows=lows, highs=highs, means=means)


def histogram(value: Any, low: float, high: float) -> Any:
    """Counts in `BINS` equal steps; the same as numpy's but several times faster."""
    span = high - low if high > low else 1.0
    place = ((value.reshape(-1) - np.float32(low)) * np.float32(BINS / span)).astype(np.int32)
    return np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS)
