"""The file inside a Triton repository, by the backend that is to run it.

onnxruntime's own QDQ form on the CPU, TensorRT's where that accelerates, and a TFLite file within Arm NN's
allow-list for the armnn_tflite backend. Each is made by the target that knows the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgekit.package import Tensor
from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.quantize.running import serialize
from edgekit_converters.targets.onnx.inspect import inspect
from edgekit_converters.targets.tensorrt import graph
from edgekit_converters.values import Job

RULES = "triton-2.51"
TENSORRT = "triton-10.3"
ONNX, TFLITE = "model.onnx", "model.tflite"


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A file's bytes and what is known of it; `inputs` and `outputs` have the file's scales, if any."""

    data: bytes
    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    free_batch: bool
    facts: Mapping[str, Any]
    route: str
    tools: Mapping[str, str]


def payload_of(job: Job, folder: Path) -> Payload:
    """The file for `job`; `folder` is for what has to be written on the way.

    Raises:
        Refusal: no calibration for int8, nothing to quantize, or a graph that the backend does not take.
    """
    if job.options.get("backend") == "armnn_tflite":
        return _for_armnn(job, folder)
    made = graph.make(job, TENSORRT) if job.options.get("accelerator") else _for_onnxruntime(job)
    return Payload(
        data=made.data,
        file=ONNX,
        inputs=job.inputs,
        outputs=job.outputs,
        free_batch=made.free_batch,
        facts={**inspect(made.data), **made.facts},
        route=made.route,
        tools=made.tools,
    )


def as_served(tensor: Tensor) -> Tensor:
    """A port as it stands in the file, which is what Triton's clients send: its own name, its integers."""
    dtype = tensor.dtype if tensor.quantization is None else "int8"
    return Tensor(name=tensor.artifact_name or tensor.name, dtype=dtype, shape=tensor.shape)


def _for_onnxruntime(job: Job) -> graph.Made:
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


def _for_armnn(job: Job, folder: Path) -> Payload:
    """What the target armnn writes, by its own rules: those of the profile are for ONNX."""
    from edgekit_converters.targets.armnn import ArmnnTarget

    place = folder / ".armnn"
    place.mkdir()
    built = ArmnnTarget().build(replace(job, rules=""), place)
    path = place / built.main
    data = path.read_bytes()
    for item in place.iterdir():
        item.unlink()
    place.rmdir()
    return Payload(
        data=data,
        file=TFLITE,
        inputs=built.inputs,
        outputs=built.outputs,
        free_batch=False,
        facts=built.facts,
        route=f"{built.route} > Triton",
        tools=built.tools,
    )
