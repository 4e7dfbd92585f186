"""The first route to a TFLite file: the hub, our own lowering, no TensorFlow.

int8 and int16x8 come from the QDQ graph that `quantize` writes by the rules of LiteRT. The batch stays
free where the graph allows it without computing shapes at run time; else it is one, as devices run it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from edgekit_converters.targets.tflite.lower.runtimes import litert_of
from edgekit_converters.values import Built, Job

RULES = "tflite-2.3"
STATIC = ("int8", "int16x8")
"""Precisions that need calibration."""
_WEIGHTS = {"fp16": "float16", "dynamic": "int8", "int4": "int4"}


def build(job: Job, path: Path) -> Built:
    """Write the TFLite file of `job`'s hub to `path`. See `TfliteTarget.build`."""
    model, facts = _graph(job)
    lowered = _lowered(job, model)
    require_effect(job.precision, {**lowered.facts, **facts})
    lowered.write(path)
    return Built(
        main=path.name,
        inputs=_bound(job.inputs, lowered.inputs),
        outputs=_bound(job.outputs, lowered.outputs),
        requires=Requirements(runtime="litert", min_runtime=litert_of(lowered.min_runtime)),
        route=f"{job.source.kind} > hub" + (" > QDQ" if job.precision in STATIC else "") + " > TFLite",
        facts={**lowered.facts, "min_tflite_runtime": lowered.min_runtime, **facts},
        tools={"ai-edge-litert": version("ai-edge-litert")},
    )


def _graph(job: Job) -> tuple[ir.Model, Mapping[str, Any]]:
    """The hub, as a QDQ graph where the precision wants integers."""
    model = ir.load(job.hub)
    if job.precision not in STATIC:
        return model, {}
    from edgekit_converters.quantize.pipeline import GOAL, for_target

    quantized, facts = for_target(
        model,
        None if job.ranges is None else Path(job.ranges),
        load_rules(RULES),
        job.precision,
        supported=SUPPORTED,
        samples=None if job.calibration is None else Path(job.calibration),
        goal=float(job.options.get("snr_db", GOAL)),
    )
    return quantized, {"quantization": facts}


def _lowered(job: Job, model: ir.Model) -> Lowered:
    options = Options(weights=_WEIGHTS.get(job.precision, "float32"))
    try:
        free = compiled(model, options=options)
    except Refusal:
        # With a batch of one, shapes that are computed become constants, and kernels may take them.
        if not _is_free(model):
            raise
        return compiled(_batch_of_one(model), options=options)
    if "SHAPE" in free.facts["ops"] and _is_free(model):
        return compiled(_batch_of_one(model), options=options)
    return free


def _is_free(model: ir.Model) -> bool:
    return any(
        value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int)
        for value in model.graph.inputs
    )


def _batch_of_one(model: ir.Model) -> ir.Model:
    """`model` with its batch fixed at one: computed shapes become constants."""
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
    from dataclasses import replace

    if port.quant is None or not item.dtype.startswith("float"):  # the contract's integers are the file's
        return item
    scale, zero = port.quant.scale[0], port.quant.zero_point[0]
    return replace(item, quantization=Quantization(scale=scale, zero_point=zero))
