"""Where the error of a quantized graph comes from: each layer's tensors beside those of the float graph.

SNR and cosine compare the whole error that has gathered up to a tensor; `added` is the noise a layer
adds itself, in dB below its signal: what its output has beyond the worst of its inputs. Kurtosis names
the tensors whose few large values make one grid for all a poor one. Only measured here; `rescue` decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize.emulate import result_names
from edgekit_converters.quantize.roles import roles
from edgekit_converters.quantize.running import chunks, float_tensors, runs

_EXACT = 200.0
"""SNR in dB that stands for no error at all."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the float graph, named by its first output. `snr`, `added` in dB."""

    name: str
    op: str
    snr: float
    cosine: float
    kurtosis: float
    added: float = -_EXACT

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, three digits."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}


def snr(expected: Any, found: Any) -> float:
    """Signal to noise in dB over all values."""
    a = np.asarray(expected, np.float64)
    noise = float(np.square(a - found).sum())
    signal = float(np.square(a).sum())
    if noise == 0.0:
        return _EXACT
    return min(_EXACT, 10 * math.log10(max(signal, 1e-300) / noise))


def compare(model: ir.Model, quantized: ir.Model, inputs: Mapping[str, Any]) -> list[Layer]:
    """Every float tensor of `model` that `quantized` has too, in the graph's order."""
    places = result_names(quantized)
    have = set(float_tensors(quantized))
    wanted = [name for name in float_tensors(model) if places.get(name, name) in have]
    sums: dict[str, Any] = {}
    for part, step in chunks(model, wanted):
        there = [places.get(name, name) for name in part]
        left = runs(model, inputs, part, optimized=True, step=step)
        right = runs(quantized, inputs, there, optimized=False, step=step)
        for ours, theirs in zip(left, right, strict=True):
            for name, place in zip(part, there, strict=True):
                if ours[name].size:
                    sums[name] = sums.get(name, 0) + _sums(ours[name], theirs[place])
    layers = [_layer(node, sums) for node in model.graph if str(node.outputs[0].name) in sums]
    return _with_added(model, layers)


def rank(layers: Sequence[Layer]) -> list[Layer]:
    """Worst first: by the noise a layer adds, then by kurtosis."""
    return sorted(layers, key=lambda item: (-round(item.added, 3), -item.kurtosis, item.name))


def _sums(a: Any, b: Any) -> Any:
    a, b = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    squared = a * a
    return np.array(
        [a.size, a.sum(), squared.sum(), (squared * a).sum(), (squared * squared).sum(), a @ b, b @ b]
    )


def _layer(node: ir.Node, sums: Mapping[str, Any]) -> Layer:
    name = str(node.outputs[0].name)
    n, s1, s2, s3, s4, ab, bb = (float(item) for item in sums[name])
    noise = max(s2 - 2 * ab + bb, 0.0)
    ratio = _EXACT if noise <= 1e-14 * max(s2, bb) else 10 * math.log10(max(s2, 1e-300) / noise)
    mean = s1 / n
    variance = s2 / n - mean**2
    fourth = s4 / n - 4 * mean * s3 / n + 6 * mean**2 * s2 / n - 3 * mean**4
    kurtosis = fourth / variance**2 if variance > 1e-12 * max(s2 / n, 1e-300) else 0.0
    cosine = ab / math.sqrt(s2 * bb) if s2 * bb > 0 else float(s2 == bb)
    return Layer(name=name, op=node.op_type, snr=min(_EXACT, ratio), cosine=cosine, kurtosis=kurtosis)


def _with_added(model: ir.Model, layers: Sequence[Layer]) -> list[Layer]:
    by_name = {item.name: item for item in layers}
    makers = {str(node.outputs[0].name): node for node in model.graph}
    found = []
    for item in layers:
        node = makers[item.name]
        names = [str(value.name) for i in roles(node).data if (value := node.inputs[i]) is not None]
        before = [by_name[name].snr for name in names if name in by_name]
        # Noise power relative to the signal, that of the inputs taken away.
        inherited = max((10 ** (-value / 10) for value in before), default=0.0)
        own = max(10 ** (-item.snr / 10) - inherited, 10 ** (-_EXACT / 10))
        found.append(Layer(**{**asdict(item), "added": 10 * math.log10(own)}))
    return found
