"""Cross-layer equalization and smoothing: per-channel factors that make one grid fit all channels.

A tensor has one scale, so channels with small values are rounded coarsely. The factor of a channel is
(its peak)^a / (the reader's weight peak)^(1-a): a = 1/2 shares the burden between activation and
weight (what is called cross-layer equalization between two weighted ops, smooth-quant behind a layer
normalisation); before a depthwise convolution, whose weights have a scale per channel, a = 1 costs
nothing. Every factor moved leaves the float graph as it was; whether it helps is measured by `search`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize import scaling
from edgekit_converters.quantize.graphs import clone, remove_unused
from edgekit_converters.quantize.statistics import Tensor

_SHARED = 0.5
_LARGEST = 64.0
"""Factors stay within [1/64, 64]: beyond, another layer's rounding would suffer."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "equalize": ("Conv", "Gemm", "MatMul"),
    "smooth": ("LayerNormalization",),
}


def equalized(model: ir.Model, known: Mapping[str, Tensor], kind: str) -> tuple[ir.Model, dict[str, Tensor]]:
    """A copy with factors moved at sites whose producer is of `kind`, and what its tensors do now.

    `known`: the stored calibration by tensor name. Sites whose last tensor's channels it does not
    know are left as they are.
    """
    copy = clone(model)
    changed: dict[str, Tensor] = {}
    for site in scaling.sites(copy.graph):
        if site.producer.op_type not in KINDS[kind]:
            continue
        width = scaling.channels(site.readers[0])
        passed = {name: known[name] for name in site.between if name in known}
        last = passed.get(str(site.tensor.name))
        if last is None or any(np.shape(item.lows) != (width,) for item in passed.values()):
            continue
        factor = factors(site, np.asarray(last.peaks, np.float64))
        scaling.apply(copy.graph, site, factor)
        changed |= {name: item.divided(factor) for name, item in passed.items()}
    remove_unused(copy.graph)
    return copy, changed


def factors(site: scaling.Site, peaks: Any) -> Any:
    """What to divide each channel of the site's tensor by; 1 for channels that are always zero."""
    weights = np.max([scaling.input_peaks(node, len(peaks)) for node in site.readers], axis=0)
    share = 1.0 if all(scaling.depthwise(node) for node in site.readers) else _SHARED
    useful = (peaks > 0) & (weights > 0)
    raw = np.where(useful, np.maximum(peaks, 1e-12) ** share / np.maximum(weights, 1e-12) ** (1 - share), 1.0)
    if useful.any():
        # Relative to the middle one, so that the tensor as a whole keeps its size.
        raw = np.where(useful, raw / np.exp(np.log(raw[useful]).mean()), 1.0)
    return np.clip(raw, 1 / _LARGEST, _LARGEST)
