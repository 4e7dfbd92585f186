"""Building a Core ML package for a job. Imported in coremltools workers only.

The hub's graph with a batch of one, as a phone uses it (or a range of batches where the profile's options
say so), through `lower` and into a package; for ``int8`` the graph gets its quantize/dequantize pairs from
the one calibration first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import coremltools as ct
import onnx
import onnx_ir as ir

from edgekit.package import Requirements, Tensor
from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.quantize import pipeline
from edgekit_converters.targets.coreml import lower
from edgekit_converters.targets.coreml.lower.boundary import Port
from edgekit_converters.targets.coreml.lower.registry import accepts
from edgekit_converters.values import Built, Job


def build(job: Job, path: Path) -> Built:
    """Lower `job`'s hub to `path`. See `CoremlTarget.build`."""
    deployment = str(job.options.get("deployment_target", "iOS15"))
    model, facts = _graph(job, deployment)
    precision = "fp16" if job.precision == "int8" else job.precision
    lowered = lower.lower(model, deployment_target=deployment, precision=precision, interface=_interface(job))
    if job.precision == "int8":
        _check_pairs(lowered.facts["ops"])
    lower.save(lowered, path, description=f"{job.inputs[0].name} to {job.outputs[0].name}, by edgekit")
    compressed = int(lowered.facts.get("compressed_weights", 0))
    return Built(
        main=path.name,
        inputs=_ports(job.inputs, lowered.inputs),
        outputs=_ports(job.outputs, lowered.outputs),
        requires=Requirements(runtime="coreml", min_runtime=lowered.min_runtime),
        route=f"{job.source.kind} > hub > {'QDQ > ' if job.precision == 'int8' else ''}MIL ({deployment})",
        facts={
            **lowered.facts,
            **({"quantization": facts} if facts else {}),
            "compressed_weights": compressed,
            "int8_op_ratio": _ratio(facts),
            "images": {port.name: asdict(port.image) for port in lowered.inputs if port.image},
        },
        tools={"coremltools": ct.__version__},
    )


def _graph(job: Job, deployment: str) -> tuple[ir.Model, dict[str, Any]]:
    """The graph to lower, and the facts of its quantization."""
    fixed = "batch" not in job.options
    proto = hub.with_batch_one(Path(job.hub)) if fixed else onnx.load(job.hub)
    model = ir.from_proto(proto)
    if job.precision != "int8":
        return model, {}
    if int(deployment.removeprefix("iOS")) < 17:
        raise Refusal(
            "int8 activations need iOS 17", remedy="deployment target iOS17", code="needs_newer_runtime"
        )
    rules = load_rules(job.rules or f"coreml-{deployment.lower()}")
    calibration = Path(job.ranges) if job.ranges else None
    samples = Path(job.calibration) if job.calibration else None
    lowering: dict[str, Any] = {"supported": lower.SUPPORTED, "accepts": accepts}
    lowering["goal"] = float(job.options.get("snr_db", pipeline.GOAL))
    return pipeline.for_target(model, calibration, rules, "int8", samples=samples, **lowering)


def _check_pairs(ops: Mapping[str, int]) -> None:
    """What was to compute with int8 still says so after coremltools' passes."""
    if not ops.get("quantize") or not any(name.startswith("constexpr_") for name in ops):
        raise Refusal(
            "the program holds no int8 activation or no int8 weight",
            remedy="use fp16, or w8 for the weights alone",
            code="nothing_quantized",
        )


def _ratio(facts: Mapping[str, Any]) -> float:
    """The share of weighted ops that compute with integers."""
    done, total = facts.get("weighted_ops", (0, 0))
    return round(done / total, 3) if total else 0.0


def _ports(wanted: Sequence[Tensor], found: Sequence[Port]) -> tuple[Tensor, ...]:
    """The contract's tensors with the names that they have in the package."""
    names = {port.name: port.artifact_name for port in found}
    return tuple(
        Tensor(
            name=item.name,
            dtype=item.dtype,
            shape=item.shape,
            artifact_name=names[item.name] if names[item.name] != item.name else None,
        )
        for item in wanted
    )


def _interface(job: Job) -> lower.Interface:
    """Images, labels and the range of the batch, where the profile's options ask for them."""
    batch = job.options.get("batch")
    ranges = {"N": (int(batch[0]), int(batch[1]))} if batch else {}
    images: dict[str, lower.ImageInput] = {}
    if job.options.get("image_inputs"):
        images = {item["name"]: image for item in job.contract.get("inputs", ()) if (image := image_of(item))}
    labelled = _labelled(job) if job.options.get("class_labels") else None
    return lower.Interface(
        images=images,
        probabilities=labelled["name"] if labelled else None,
        labels=labelled["labels"] if labelled else (),
        ranges=ranges,
    )


def image_of(spec: Mapping[str, Any]) -> lower.ImageInput | None:
    """The image that an input of the contract takes; None when it is none, or its colours are not said."""
    steps = spec.get("preprocess") or {}
    shape, color = spec.get("shape", ()), steps.get("color")
    if spec.get("meaning") != "image" or color is None or len(shape) != 4:
        return None
    channels = 1 if color == "gray" else 3
    scale = 1.0 if steps.get("scale") is None else float(steps["scale"])
    means, stds = (_each(steps.get(key), channels, usual) for key, usual in (("mean", 0.0), ("std", 1.0)))
    return lower.ImageInput(
        color=color,
        scale=tuple(scale / std for std in stds),
        bias=tuple(-mean / std for mean, std in zip(means, stds, strict=True)),
        channels_last=spec.get("layout") == "NHWC" or (shape[1] != channels and shape[3] == channels),
    )


def _each(given: Sequence[float] | None, channels: int, usual: float) -> list[float]:
    """One number a channel."""
    found = [float(item) for item in given or [usual]]
    return found * channels if len(found) == 1 else found


def _labelled(job: Job) -> Mapping[str, Any] | None:
    """The first output of the contract that is a distribution over labelled classes."""
    for item in job.contract.get("outputs", ()):
        labels, shape = item.get("labels", ()), item.get("shape", ())
        if item.get("activation") == "softmax" and labels and [*shape] == [-1, len(labels)]:
            found: Mapping[str, Any] = item
            return found
    return None
