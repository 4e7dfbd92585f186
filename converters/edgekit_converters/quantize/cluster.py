"""Weight clustering: each layer's weights as few distinct values, the fewest that the verdict accepts.

Values are found by k-means in one dimension, started where the cube root of the weights' density puts
them (which is where many values end): nothing is random. The float graph keeps its form; a lowering
that stores palettes (Core ML) finds the distinct values again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters.errors import Refusal
from edgekit_converters.quantize import affine, levels
from edgekit_converters.quantize.graphs import clone, constant, remove_unused, store
from edgekit_converters.quantize.prune import prunable, require_gain

BITS = (0, 8, 6, 4, 3, 2, 1)
"""Bits of a palette index by level; 0: the layer stays as it is."""
_ROUNDS = 50
_DENSITY = 1024


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """The clustered model and the bits of a palette index by layer, 0 where it was left."""

    model: ir.Model
    bits: Mapping[str, int]


def cluster(model: ir.Model, accepted: Callable[[ir.Model], bool], rules: Rules) -> Clustered:
    """Search the fewest bits; `accepted` is the verdict on a candidate.

    Raises:
        Refusal: the runtime stores no palettes, or no layer bears even the largest.
    """
    require_gain(rules, "palette")
    base = clone(model)
    affine.fold(base.graph)
    layers = prunable(base.graph)
    known: dict[tuple[str, int], Any] = {}

    def candidate(choice: Mapping[str, int]) -> ir.Model:
        copy = clone(base)
        for node in copy.graph:
            name = str(node.outputs[0].name)
            bits = BITS[choice.get(name, 0)]
            if not bits:
                continue
            if (name, bits) not in known:
                known[name, bits] = palettized(constant(node.inputs[1]), bits)
            node.replace_input_with(1, store(copy.graph, f"{name}_clustered", known[name, bits]))
        remove_unused(copy.graph)
        return copy

    choice = levels.strongest(layers, len(BITS), lambda choice: accepted(candidate(choice)))
    if not any(choice.values()):
        raise Refusal(
            "no layer bears a palette of 256 values within the tolerance",
            remedy="use fp16",
            code="nothing_clustered",
        )
    return Clustered(model=candidate(choice), bits={name: BITS[level] for name, level in choice.items()})


def palettized(weight: Any, bits: int) -> Any:
    """`weight` with at most 2**bits distinct values."""
    values = np.sort(weight.reshape(-1).astype(np.float64))
    count = 2**bits
    if len(np.unique(values)) <= count:
        return weight
    centres = _start(values, count)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    for _ in range(_ROUNDS):
        borders = np.searchsorted(values, (centres[:-1] + centres[1:]) / 2)
        edges = np.concatenate([[0], borders, [len(values)]])
        counts = np.diff(edges)
        moved = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    nearest = np.searchsorted((centres[:-1] + centres[1:]) / 2, weight.astype(np.float64))
    return centres[nearest].astype(np.float32)


def _start(values: Any, count: int) -> Any:
    """`count` places, or fewer, spread with the cube root of the density of sorted `values`."""
    counts, edges = np.histogram(values, _DENSITY)
    mass = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    places = np.interp((np.arange(count) + 0.5) / count * mass[-1], mass, edges)
    return np.unique(places)
