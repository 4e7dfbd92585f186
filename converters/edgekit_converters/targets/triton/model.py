"""The ONNX file inside a Triton repository: onnxruntime's on the CPU, TensorRT's where that accelerates."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.quantize.running import serialize
from edgekit_converters.targets.tensorrt import graph
from edgekit_converters.values import Job

RULES = "triton-2.51"
TENSORRT = "triton-10.3"


def model_of(job: Job) -> graph.Made:
    """The file for `job`.

    Raises:
        Refusal: no calibration for int8, nothing to quantize, or a graph that TensorRT does not take.
    """
    if job.options.get("accelerator"):
        return graph.make(job, TENSORRT)
    data, facts = Path(job.hub).read_bytes(), {}
    if job.precision == "int8":
        from edgekit_converters.quantize.pipeline import GOAL, for_target

        model, found = for_target(
            ir.load(job.hub),
            None if job.ranges is None else Path(job.ranges),
            load_rules(job.rules or RULES),
            job.precision,
            samples=None if job.calibration is None else Path(job.calibration),
            goal=float(job.options.get("snr_db", GOAL)),
        )
        data, facts = serialize(model), {"quantization": found}
    step = " > QDQ" if job.precision == "int8" else ""
    return graph.Made(
        data=data,
        free_batch=graph.free_batch(hub.to_proto(ir.load(job.hub)).graph),
        facts=facts,
        route=f"{job.source.kind} > hub{step} > Triton",
        tools={"onnxruntime": version("onnxruntime")},
    )
