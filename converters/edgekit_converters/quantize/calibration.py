"""The one calibration: what every float tensor of the hub does on the calibration samples.

Per tensor: minimum, maximum and a 2,048-bin histogram between them; per channel (axis 1, where there
is one): largest magnitude and mean. Stored once as an npz; the ranges of every target are derived
from it. Two passes over the data, so that the histogram's ends are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.onnx_session import OnnxSession

BINS = 2048
_STEP = 32


def calibrate(hub: Path, samples: Path, out: Path) -> Mapping[str, Any]:
    """Run the hub on the samples (npz by input name) and store the statistics.

    Returns:
        Facts: number of tensors and samples.
    """
    inputs = load_arrays(samples)
    session = OnnxSession(_all_tensors(hub), threads=2)
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    peaks: dict[str, Any] = {}
    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}
    channels: dict[str, int] = {}
    fickle: set[str] = set()
    for tensors in _runs(session, inputs):
        for name, value in tensors.items():
            low[name] = min(low.get(name, np.inf), float(value.min()))
            high[name] = max(high.get(name, -np.inf), float(value.max()))
            if value.ndim > 1 and channels.setdefault(name, value.shape[1]) != value.shape[1]:
                fickle.add(name)  # axis 1 is no channel: recurrent layers have the batch there
            elif value.ndim > 1:
                axes = tuple(axis for axis in range(value.ndim) if axis != 1)
                peaks[name] = np.maximum(peaks.get(name, 0), np.abs(value).max(axis=axes))
                sums[name] = sums.get(name, 0) + value.sum(axis=axes, dtype=np.float64)
                counts[name] = counts.get(name, 0) + value.size // value.shape[1]
    histograms: dict[str, Any] = {name: np.zeros(BINS, np.int64) for name in low}
    for tensors in _runs(session, inputs):
        for name, value in tensors.items():
            span = (low[name], high[name] if high[name] > low[name] else low[name] + 1)
            histograms[name] += np.histogram(value, BINS, span)[0]
    peaks = {name: value for name, value in peaks.items() if name not in fickle}
    _store(out, low, high, histograms, peaks, {name: sums[name] / counts[name] for name in peaks})
    return {"tensors": len(low), "samples": len(next(iter(inputs.values())))}


def load_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """MinMax ranges by tensor name from a stored calibration."""
    arrays = load_arrays(path)
    names, limits = arrays["names"], arrays["limits"]
    return {str(name): (float(a), float(b)) for name, (a, b) in zip(names, limits, strict=True)}


def _all_tensors(hub: Path) -> bytes:
    """The hub with every float tensor as an output."""
    model = onnx.load(hub)
    known = {item.name: item for item in (*model.graph.value_info, *model.graph.input)}
    have = {item.name for item in model.graph.output}
    produced = [name for node in model.graph.node for name in node.output if name]
    for name in [*(item.name for item in model.graph.input), *produced]:
        info = known.get(name)
        if name in have or info is None or info.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            continue
        if name in {item.name for item in model.graph.input}:
            continue  # inputs are at hand already
        model.graph.output.append(info)
    data: bytes = model.SerializeToString()
    return data


def _runs(session: OnnxSession, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All float tensors, inputs included, for one step of samples after another."""
    n = len(next(iter(inputs.values())))
    for start in range(0, n, _STEP):
        batch = {name: value[start : start + _STEP] for name, value in inputs.items()}
        tensors = {**session.run(batch), **batch}
        yield {k: v for k, v in tensors.items() if v.dtype == np.float32 and v.size and v.ndim}


def _store(
    out: Path,
    low: Mapping[str, float],
    high: Mapping[str, float],
    histograms: Mapping[str, Any],
    peaks: Mapping[str, Any],
    means: Mapping[str, Any],
) -> None:
    names = sorted(low)
    arrays: dict[str, Any] = {
        "names": np.array(names),
        "limits": np.array([(low[name], high[name]) for name in names], np.float64),
        "histograms": np.stack([histograms[name] for name in names]),
    }
    arrays.update({f"peak:{name}": np.asarray(peaks[name]) for name in sorted(peaks)})
    arrays.update({f"mean:{name}": np.asarray(means[name]) for name in sorted(means)})
    save_arrays(out, arrays)
