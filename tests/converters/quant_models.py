"""Graphs with what quantization has to cope with, and their statistics; weights from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters import hub
from edgekit_converters.npz import save_arrays
from edgekit_converters.quantize import calibration, statistics
from edgekit_converters.quantize.graphs import clone
from edgekit_converters.quantize.statistics import Statistics
from tests.converters.graphs import Array, GraphBuilder

IMAGE = (3, 8, 8)


def canonical(
    build: Callable[[GraphBuilder], tuple[str, list[int]]], shape: tuple[int, ...] = IMAGE
) -> ir.Model:
    """The canonical graph of what `build` appends; it gives the output and its shape."""
    graph = GraphBuilder(shape, seed=3)
    output, size = build(graph)
    return clone(hub.canonical(graph.model(output, size, opset=21)).model)


def residual(g: GraphBuilder) -> tuple[str, list[int]]:
    """A residual block: one tensor has two readers."""
    y = g.op("Relu", g.op("Conv", "x", g.weight(8, 3, 3, 3), g.weight(8), pads=[1, 1, 1, 1]))
    z = g.op("Relu", g.op("Conv", y, g.weight(8, 8, 3, 3), g.weight(8), pads=[1, 1, 1, 1]))
    y = g.op("Relu", g.op("Add", y, g.op("Conv", z, g.weight(8, 8, 1, 1), g.weight(8))))
    y = g.op("Reshape", g.op("GlobalAveragePool", y), g.constant(np.array([-1, 8], np.int64)))
    y = g.op("Gemm", y, g.weight(8, 10, scale=1.0), g.weight(10))
    return g.op("Softmax", y, axis=-1), [10]


def head(g: GraphBuilder) -> tuple[str, list[int]]:
    """Boxes of hundreds beside scores below one, in one output."""
    y = g.op("Relu", g.op("Conv", "x", g.weight(8, 3, 1, 1), g.weight(8)))
    boxes = g.op("Conv", y, g.weight(4, 8, 1, 1, scale=100.0), g.weight(4))
    scores = g.op("Sigmoid", g.op("Conv", y, g.weight(2, 8, 1, 1), g.weight(2)))
    return g.op("Concat", boxes, scores, axis=1), [6, 8, 8]


def uneven(g: GraphBuilder) -> tuple[str, list[int]]:
    """Channels of a thousandfold different size between two convolutions."""
    spread = np.geomspace(1, 1000, 8).astype(np.float32)
    first, second = g.random.standard_normal((2, 8, 8)).astype(np.float32)
    wide = g.constant((first[:, :3] * spread[:, None]).reshape(8, 3, 1, 1))
    narrow = g.constant((second / spread).reshape(8, 8, 1, 1))
    y = g.op("Relu", g.op("Conv", "x", wide, g.weight(8)))
    return g.op("Conv", y, narrow, g.weight(8)), [8, 8, 8]


def samples(n: int = 48, shape: tuple[int, ...] = IMAGE, *, seed: int = 1) -> dict[str, Array]:
    """Inputs by name."""
    return {"x": np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)}


def known(model: ir.Model, inputs: Mapping[str, Any]) -> Statistics:
    """The model's calibration on `inputs`."""
    return calibration.measure(model, inputs)


def stored(model: ir.Model, inputs: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """The same on disk, and the samples."""
    statistics.save(folder / "ranges.npz", known(model, inputs))
    save_arrays(folder / "samples.npz", inputs)
    return folder / "ranges.npz", folder / "samples.npz"
