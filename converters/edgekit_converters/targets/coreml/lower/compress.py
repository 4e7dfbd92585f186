"""Weight compression: int8 per channel, int4 per block, palettes, sparsity, by what the iOS version knows.

coremltools' passes do it, on the finished program; only weights of at least `THRESHOLD` elements. Whatever
leaves the weights as they were is refused: a compressed variant that is not smaller is a lie.
Specification: coremltools.optimize.coreml.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import coremltools.optimize.coreml as cto
import numpy as np
from coremltools._deps import kmeans1d
from coremltools.converters.mil.mil.passes.graph_pass import PassOption
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from numpy.typing import NDArray

from edgekit_converters.errors import Refusal

Array = NDArray[Any]

THRESHOLD = 512
_BLOCK = 32
_BITS = (1, 2, 3, 4, 6, 8)
_GROUP = 16
_ENOUGH = 0.95
"""The most that may be left of the weights' bytes."""
_WORTH = 0.1
"""The least share of zeros for which a weight is stored sparse: one bit of sixteen says where they are."""


class Scheme(NamedTuple):
    """The pass, its configuration for an iOS version (None: one for each weight), the first that has it."""

    name: str
    config: Callable[[int], Any] | None
    since: int


def _linear(**options: Any) -> Callable[[int], Any]:
    return lambda target: cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", weight_threshold=THRESHOLD, **options
    )


def _palette(bits: int) -> Callable[[int], Any]:
    def config(target: int) -> Any:
        grouped = {"granularity": "per_grouped_channel", "group_size": _GROUP} if target >= 18 else {}
        table = partial(_clustered, 1 << bits)
        return cto.OpPalettizerConfig(
            mode="custom", lut_function=table, weight_threshold=THRESHOLD, **grouped
        )

    return config


def _clustered(size: int, weight: Array) -> tuple[Array, Array]:
    """The best palette of `size` values for `weight` in the squared error, and each weight's place in it.

    One-dimensional clustering is solved exactly, so nothing depends on a seed.
    """
    values, places, counts = np.unique(weight, return_inverse=True, return_counts=True)
    found = kmeans1d.cluster(values, min(len(values), size), weights=counts)
    palette = np.zeros(size, weight.dtype)
    palette[: len(found.centroids)] = found.centroids
    return palette, np.array(found.clusters, np.uint8)[places.reshape(-1)]


def _sparse(share: float) -> Callable[[int], Any]:
    return lambda target: cto.OpMagnitudePrunerConfig(target_sparsity=share, weight_threshold=THRESHOLD)


def _zeros(_: int) -> Any:
    """The zeros that are there, where they are more than the list of their places takes."""
    return cto.OpThresholdPrunerConfig(
        threshold=0.0, minimum_sparsity_percentile=_WORTH, weight_threshold=THRESHOLD
    )


def _few_valued(program: Any, target: int) -> dict[str, Any]:
    """A palette for every op whose weight has few enough distinct values, of the smallest size that there is.

    coremltools' own mode for this takes eight values too, which iOS before 18 does not.
    """
    found = {}
    for op in program.functions["main"].operations:
        value = getattr(op.outputs[0], "val", None) if op.op_type == "const" else None
        if not isinstance(value, np.ndarray) or value.size < THRESHOLD or value.dtype.kind != "f":
            continue
        count = len(np.unique(value))
        sizes = [1 << bits for bits in _BITS if bits != 3 or target >= _SINCE_18["palettized3"]]
        size = next((size for size in sizes if size >= count), None)
        if size is None:
            continue
        for reader in op.outputs[0].child_ops:
            found[reader.name] = cto.OpPalettizerConfig(
                mode="custom", lut_function=partial(_clustered, size), weight_threshold=THRESHOLD
            )
    return found


SCHEMES: dict[str, Scheme] = {
    "w8": Scheme("linear_quantize_weights", _linear(dtype="int8", granularity="per_channel"), 16),
    "int4": Scheme(
        "linear_quantize_weights", _linear(dtype="int4", granularity="per_block", block_size=_BLOCK), 18
    ),
    **{f"palettized{bits}": Scheme("palettize_weights", _palette(bits), 16) for bits in _BITS},
    "sparse50": Scheme("prune_weights", _sparse(0.5), 16),
    "sparse75": Scheme("prune_weights", _sparse(0.75), 16),
    "pruned": Scheme("prune_weights", _zeros, 16),
    "clustered": Scheme("palettize_weights", None, 16),
}
"""Precision → how it compresses; the computation is in float16."""
_SINCE_18 = {"palettized3": 18}


def compress(program: Any, precision: str, target: int) -> dict[str, Any]:
    """Compress the weights of the optimised `program` in place; facts about what happened.

    Raises:
        Refusal: ``needs_newer_runtime`` or ``nothing_quantized``.
    """
    scheme = SCHEMES[precision]
    since = _SINCE_18.get(precision, scheme.since)
    if target < since:
        raise Refusal(
            f"{precision} needs iOS {since}",
            remedy=f"deployment target iOS{since}, or a precision that iOS {target} has",
            code="needs_newer_runtime",
        )
    before = weight_bytes(program)
    runner = PASS_REGISTRY[f"compression::{scheme.name}"]
    if scheme.config is None:
        config = cto.OptimizationConfig(op_name_configs=_few_valued(program, target))
    else:
        config = cto.OptimizationConfig(global_config=scheme.config(target))
    runner.set_options([PassOption("config", config), PassOption("joint_compression", False)])
    runner(program)
    PASS_REGISTRY["common::dead_code_elimination"](program)
    after, count = weight_bytes(program), compressed(program)
    if not count or after > _ENOUGH * before:
        raise Refusal(
            f"{precision} leaves {after} of {before} bytes of weights: there is nothing to compress",
            remedy=f"use fp16; only weights of {THRESHOLD} and more elements are compressed",
            code="nothing_quantized",
        )
    return {"compressed_weights": count, "weight_bytes": after, "weight_bytes_before": before}


def compressed(program: Any) -> int:
    """How many weights are held compressed."""
    operations = program.functions["main"].operations
    return sum(op.op_type.startswith("constexpr_") for op in operations)


def weight_bytes(program: Any) -> int:
    """Bytes of all constants of the program, packed as the package packs them."""
    operations = program.functions["main"].operations
    return int(sum(_bytes(op.outputs[0]) for op in operations if op.op_type == "const"))


def _bytes(var: Any) -> float:
    value = getattr(var, "val", None)
    if value is None or not hasattr(value, "nbytes"):
        return 0.0
    width = var.dtype.get_bitwidth() if hasattr(var.dtype, "get_bitwidth") else 8 * value.itemsize
    return float(value.size * width / 8)
