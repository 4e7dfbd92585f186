"""A TFLite `File` as an ONNX model: ports in the file's types, names and layout; ops by `ops/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import pruned
from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.ops import (
    arithmetic,
    convolution,
    logic,
    movement,
    resize,
    shapes,
    statistics,
)
from edgekit_converters.frontends.tflite_model.reader import File, Op

_OPS: Mapping[str, Callable[[Graph, Op], None]] = {
    **arithmetic.OPS,
    **convolution.OPS,
    **logic.OPS,
    **movement.OPS,
    **resize.OPS,
    **shapes.OPS,
    **statistics.OPS,
}


def to_onnx(file: File, where: str) -> onnx.ModelProto:
    """The whole model.

    Raises:
        SourceError: an op or option that is not supported, with its output named.
    """
    g = Graph(file, where)
    ports: dict[str, list[tuple[str, object, tuple[int | str, ...]]]] = {"in": [], "out": []}
    for name, index in file.inputs.items():
        g.feed(index, name)
        ports["in"].append((name, g.tensor(index).dtype, _sizes(g, index)))
    for op in file.ops:
        if op.kind not in _OPS:
            raise g.refusal(op, "has no ONNX form here")
        try:
            _OPS[op.kind](g, op)
        except (IndexError, ValueError, TypeError, ZeroDivisionError) as error:
            raise SourceError(
                f"{op.kind} with inputs that do not fit it: {error}", where=where, code="corrupt_source"
            ) from error
    for name, index in file.outputs.items():
        g.e.op("Identity", g.ints(index), out=f"{name}__out" if name in file.inputs else name)
        ports["out"].append(
            (f"{name}__out" if name in file.inputs else name, g.tensor(index).dtype, _sizes(g, index))
        )
    model = g.e.model(ports["in"], ports["out"])
    pruned(model.graph)
    return model


def _sizes(g: Graph, index: int) -> tuple[int | str, ...]:
    shape = g.tensor(index).shape
    return ("N", *shape[1:]) if g.free and shape and shape[0] == 1 else shape
