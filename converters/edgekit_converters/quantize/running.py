"""Running an IR graph in onnxruntime and looking at any of its tensors, with bounded memory.

Nothing is decided here: `calibration` measures, `emulate` and `analysis` compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from edgekit_converters.onnx_session import OnnxSession

BUDGET = 192 * 2**20
"""Bytes of tensors looked at in one go."""
_TENSORS = 128
STEP = 16
"""Samples in one call of the runtime, at most."""


def runs(
    model: ir.Model, inputs: Mapping[str, Any], names: Sequence[str], *, optimized: bool, step: int = STEP
) -> Iterator[dict[str, Any]]:
    """The tensors `names` for one step of samples after another."""
    session = OnnxSession(serialize(with_outputs(model, names)), threads=2, optimized=optimized)
    samples = len(next(iter(inputs.values())))
    for start in range(0, samples, step):
        yield session.run({name: value[start : start + step] for name, value in inputs.items()})


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of `model` that gives the tensors `names`, in this order, and nothing else."""
    graph = model.graph.clone()
    values = {str(item.name): item for item in graph.inputs}
    values |= {str(item.name): item for node in graph for item in node.outputs}
    graph.outputs.clear()
    graph.outputs.extend(values[name] for name in names)
    return ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))


def serialize(model: ir.Model) -> bytes:
    """The model's bytes, the same for the same model."""
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


def chunks(model: ir.Model, names: Sequence[str]) -> Iterator[tuple[list[str], int]]:
    """`names` in parts that fit into the budget, each with the step of samples to take.

    Every part runs the graph anew: rather few samples in a step than many parts.
    """
    sizes = {str(item.name): _bytes(item) for node in model.graph for item in node.outputs}
    part: list[str] = []
    total = 0
    for name in names:
        size = sizes.get(name, 4)
        if part and (total + size > BUDGET or len(part) >= _TENSORS):
            yield part, _step(total)
            part, total = [], 0
        part.append(name)
        total += size
    if part:
        yield part, _step(total)


def float_tensors(model: ir.Model) -> list[str]:
    """Names of the float32 tensors that nodes make, in the graph's order."""
    made = [item for node in model.graph for item in node.outputs if item.name]
    return [str(item.name) for item in made if item.dtype == ir.DataType.FLOAT]


def _step(total: int) -> int:
    return max(1, min(STEP, BUDGET // max(1, total)))


def _bytes(value: ir.Value) -> int:
    """Bytes for one sample; unknown sizes and the batch count as one."""
    total = 4
    for size in (value.shape or ())[1:]:
        total *= size if isinstance(size, int) else 1
    return total
