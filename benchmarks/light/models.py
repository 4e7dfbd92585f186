"""Finding the nine networks, and turning the weights that their graphs make into real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def light_models() -> dict[str, Path]:
    """Name → file in the installed `onnx` wheel."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return {path.stem.removeprefix("light_"): path for path in sorted(folder.glob("light_*.onnx"))}


def with_real_weights(source: Path, target: Path, seed: int = 11) -> None:
    """Replace every ConstantOfShape weight by seeded values of He's variance, stored in the file.

    Scales and variances of normalisations stay near one, so that signals neither die nor explode.
    """
    model = onnx.load(source)
    rng = np.random.default_rng(seed)
    shapes = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    positive = {
        name
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
        for name in (node.input[1], node.input[4])
    }
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(size) for size in shapes[node.input[0]]]
        name = node.output[0]
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        values = rng.standard_normal(shape) * (np.sqrt(2 / fan) if len(shape) > 1 else 0.05)
        values = 1 + 0.1 * np.abs(values) if name in positive else values
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, target)
