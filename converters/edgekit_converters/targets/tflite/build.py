"""The first route to a TFLite file: the hub, our own lowering, no TensorFlow.

int8 and int16x8 come from the QDQ graph that `quantize` writes by the rules of LiteRT. The batch stays
free where the graph allows it without computing shapes at run time; else it is one, as devices run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgekit.package import Quantization, Requirements, Tensor
from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.effect import require_effect
from edgekit_converters.targets.tflite.lower import SUPPORTED, Lowered, Options, Port
from edgekit_converters.targets.tflite.lower import build as compiled
from edgekit_converters.targets.tflite.lower.restrict import Restriction
from edgekit_converters.targets.tflite.lower.runtimes import litert_of
from edgekit_converters.values import Built, Job

STATIC = ("int8", "int16x8")
"""Precisions that need calibration."""
_WEIGHTS = {"fp16": "float16", "dynamic": "int8", "int4": "int4"}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a runtime that reads TFLite files takes of them; LiteRT takes all that we write.

    `rules` are used where the job names none; `supported` are ONNX op types of the lowering, `accepts` the
    runtime's say on single nodes; with `free_batch` the batch stays free where it can; with `flat_dense` no
    dense layer needs its input made flat; `least_memory`: the operators' order counts.
    """

    runtime: str = "litert"
    name: str = "TFLite"
    rules: str = "tflite-2.3"
    supported: frozenset[str] = SUPPORTED
    accepts: Callable[[ir.Node], bool] | None = None
    free_batch: bool = True
    flat_dense: bool = False
    least_memory: bool = False


LITERT = Dialect()


def build(job: Job, path: Path, dialect: Dialect = LITERT) -> Built:
    """Write the TFLite file of `job`'s hub to `path`. See `TfliteTarget.build`."""
    model, facts = _graph(job, dialect)
    lowered = _lowered(job, model, dialect)
    require_effect(job.precision, {**lowered.facts, **facts})
    lowered.write(path)
    return Built(
        main=path.name,
        inputs=_bound(job.inputs, lowered.inputs),
        outputs=_bound(job.outputs, lowered.outputs),
        requires=_requirements(lowered, dialect),
        route=_route(job, dialect),
        facts={**lowered.facts, "min_tflite_runtime": lowered.min_runtime, **facts},
        tools={"ai-edge-litert": version("ai-edge-litert")},
    )


def _route(job: Job, dialect: Dialect) -> str:
    between = ["QDQ"] if job.precision in STATIC else []
    return " > ".join((job.source.kind, "hub", *between, dialect.name))


def _requirements(lowered: Lowered, dialect: Dialect) -> Requirements:
    """Only LiteRT's versions are known op by op; others are held by their own allow-lists."""
    lowest = litert_of(lowered.min_runtime) if dialect.runtime == LITERT.runtime else None
    return Requirements(runtime=dialect.runtime, min_runtime=lowest)


def _graph(job: Job, dialect: Dialect) -> tuple[ir.Model, Mapping[str, Any]]:
    """The hub, as a QDQ graph where the precision wants integers."""
    model = ir.load(job.hub)
    if job.precision not in STATIC:
        return model, {}
    from edgekit_converters.quantize.pipeline import GOAL, for_target

    quantized, facts = for_target(
        model,
        None if job.ranges is None else Path(job.ranges),
        load_rules(job.rules or dialect.rules),
        job.precision,
        supported=dialect.supported,
        accepts=dialect.accepts,
        samples=None if job.calibration is None else Path(job.calibration),
        goal=float(job.options.get("snr_db", GOAL)),
    )
    return quantized, {"quantization": facts}


def _lowered(job: Job, model: ir.Model, dialect: Dialect) -> Lowered:
    rules = load_rules(job.rules or dialect.rules)
    options = Options(
        weights=_WEIGHTS.get(job.precision, "float32"),
        flat_dense=dialect.flat_dense,
        least_memory=dialect.least_memory,
        grammar=Restriction(rules) if rules.allow else None,
    )

    def lowered(graph: ir.Model) -> Lowered:
        return compiled(graph, options=options, supported=dialect.supported, accepts=dialect.accepts)

    if not dialect.free_batch:
        return lowered(batch_of_one(model))
    try:
        free = lowered(model)
    except Refusal:
        # With a batch of one, shapes that are computed become constants, and kernels may take them.
        if not _is_free(model):
            raise
        return lowered(batch_of_one(model))
    if "SHAPE" in free.facts["ops"] and _is_free(model):
        return lowered(batch_of_one(model))
    return free


def _is_free(model: ir.Model) -> bool:
    return any(
        value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int)
        for value in model.graph.inputs
    )


def batch_of_one(model: ir.Model) -> ir.Model:
    """`model` with its batch fixed at one: computed shapes become constants."""
    if not _is_free(model):
        return model
    proto = hub.to_proto(model)
    for item in (*proto.graph.input, *proto.graph.output):
        dims = item.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    del proto.graph.value_info[:]
    return hub.canonical(proto, where="hub").model


def _bound(wanted: tuple[Tensor, ...], ports: tuple[Port, ...]) -> tuple[Tensor, ...]:
    """The contract's tensors with the file's scales."""
    by_name = {port.name: port for port in ports}
    return tuple(_with_scale(item, by_name[item.name]) for item in wanted)


def _with_scale(item: Tensor, port: Port) -> Tensor:
    if port.quant is None or not item.dtype.startswith("float"):  # the contract's integers are the file's
        return item
    scale, zero = port.quant.scale[0], port.quant.zero_point[0]
    return replace(item, quantization=Quantization(scale=scale, zero_point=zero))
