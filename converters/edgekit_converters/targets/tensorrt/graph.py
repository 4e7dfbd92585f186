"""The ONNX file that TensorRT builds from: every type said in the graph, nothing left to builder flags.

TensorRT 11 has only strongly typed networks and 10 takes them too, so float16 stands in the graph as casts
and constants, and int8 as QuantizeLinear and DequantizeLinear pairs: symmetric, activations per tensor,
weights per output channel, biases in float. `faults` holds a finished file to that. Facts: NVIDIA's
"Working with Quantized Types" and the 10-to-11 migration pages; ONNX-TensorRT's operators.md for opsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgekit.rules import Rules, load_rules
from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays
from edgekit_converters.quantize import calibration
from edgekit_converters.quantize.half import halved
from edgekit_converters.quantize.running import float_tensors
from edgekit_converters.targets.tensorrt.opset import lowered
from edgekit_converters.values import Job

_OPSETS = (((10, 0), 20), ((8, 0), 13))
"""The newest opset that a TensorRT from that version on reads for certain."""
_PAIRS = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Made:
    """The file's bytes, whether its batch is free, and what was done."""

    data: bytes
    free_batch: bool
    facts: Mapping[str, Any]
    route: str
    tools: Mapping[str, str]


def make(job: Job, rules_name: str) -> Made:
    """The file for `job` by its profile's rules, else by `rules_name`.

    Raises:
        Refusal: no calibration, nothing to quantize, an operator or opset the parser does not take, or a
            source that is quantized in a way that TensorRT does not have.
    """
    rules = load_rules(job.rules or rules_name)
    model, facts = _typed(job, rules)
    proto = lowered(hub.to_proto(model), newest_opset(rules))
    found = tuple(faults(proto, newest_opset(rules)))
    if found:
        raise Refusal(
            f"TensorRT does not take this graph: {'; '.join(found[:5])}",
            remedy="start from a float source: its integers are then chosen for TensorRT",
            code="symmetric_only",
        )
    step = {"int8": " > QDQ", "fp16": ""}.get(job.precision, "")
    half = " > float16" if job.precision != "fp32" and rules.rest == "float16" else ""
    return Made(
        data=proto.SerializeToString(deterministic=True),
        free_batch=free_batch(proto.graph),
        facts={**facts, "opset": newest_opset(rules)},
        route=f"{job.source.kind} > hub{step}{half} > TensorRT's ONNX",
        tools={"onnxruntime": version("onnxruntime"), "onnx": version("onnx")},
    )


def newest_opset(rules: Rules) -> int:
    """What the TensorRT that the rules are of reads for certain."""
    here = tuple(int(part) for part in rules.version.split(".")[:2])
    return next(opset for lowest, opset in _OPSETS if here >= lowest)


def faults(model: onnx.ModelProto, opset: int) -> Iterator[str]:
    """What TensorRT would refuse of the file, as far as documents say."""
    stated = next(item.version for item in model.opset_import if item.domain == "")
    if stated > opset:
        yield f"opset {stated}, it reads {opset}"
    constants = {item.name: item for item in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type in _PAIRS:
            yield from _pair_faults(node, constants, readers.get(node.output[0], []))


def _pair_faults(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], readers: list[onnx.NodeProto]
) -> Iterator[str]:
    place = node.name or node.output[0]
    scale = constants.get(node.input[1])
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None or zero is None:
        yield f"{place}: scale and zero point must be constants"
        return
    if zero.data_type != onnx.TensorProto.INT8:
        yield f"{place}: {onnx.TensorProto.DataType.Name(zero.data_type).lower()}, only int8 is symmetric"
    if onnx.numpy_helper.to_array(zero).any():
        yield f"{place}: a zero point that is not 0"
    if not (onnx.numpy_helper.to_array(scale) > 0).all():
        yield f"{place}: a scale that is not above 0"
    weights = node.op_type == "DequantizeLinear" and node.input[0] in constants
    if not weights:
        if onnx.numpy_helper.to_array(scale).size != 1:
            yield f"{place}: activations have one scale a tensor"
        return
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    for reader in readers:
        yield from _weight_faults(node, reader, onnx.numpy_helper.to_array(scale).size, axis, constants)


def _weight_faults(
    node: onnx.NodeProto,
    reader: onnx.NodeProto,
    scales: int,
    axis: int,
    constants: Mapping[str, onnx.TensorProto],
) -> Iterator[str]:
    place = node.name or node.output[0]
    if reader.op_type in _WEIGHTED and node.output[0] in reader.input[2:]:
        yield f"{place}: a quantized bias"
        return
    if scales == 1:
        return
    rank = len(constants[node.input[0]].dims)
    wanted = _channel_axis(reader, rank)
    if wanted is None:
        yield f"{place}: scales a channel before {reader.op_type}"
    elif axis % rank != wanted:
        yield f"{place}: scales along axis {axis}, {reader.op_type} has its channels on {wanted}"


def _channel_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """Where a weighted operator's output channels lie in its weights."""
    if node.op_type == "Gemm":
        return 0 if any(item.name == "transB" and item.i for item in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(node.op_type)


def _typed(job: Job, rules: Rules) -> tuple[ir.Model, dict[str, Any]]:
    """The graph in the precision asked for.

    Behind Triton an operator that the parser does not read is no refusal: onnxruntime leaves it to CUDA.
    """
    supported = frozenset(name for entry in rules.allow for name in entry.ops) or None
    try:
        return _in_operators(job, rules, supported)
    except Refusal as error:
        if rules.target != "triton" or error.code != "unsupported_op":
            raise
        model, facts = _in_operators(job, rules, None)
        return model, {**facts, "no_engine": f"not all of it is TensorRT's: {error.message}"}


def _in_operators(
    job: Job, rules: Rules, supported: frozenset[str] | None
) -> tuple[ir.Model, dict[str, Any]]:
    model, facts = ir.load(job.hub), {}
    samples = None if job.calibration is None else Path(job.calibration)
    if job.precision == "int8":
        from edgekit_converters.quantize.pipeline import GOAL, for_target

        model, found = for_target(
            model,
            None if job.ranges is None else Path(job.ranges),
            rules,
            job.precision,
            supported=supported,
            samples=samples,
            goal=float(job.options.get("snr_db", GOAL)),
        )
        facts = {"quantization": found}
    elif supported is not None:
        model = hub.legalise(model, supported)
    if job.precision == "fp32" or rules.rest != "float16":
        return model, facts
    half, kept = halved(model, _ranges(model, samples))
    return half, {**facts, "half": kept}


def _ranges(model: ir.Model, samples: Path | None) -> Mapping[str, tuple[float, float]]:
    """What each tensor holds on the samples, so that none is made float16 that does not fit."""
    if samples is None:
        return {}
    few = {name: value[:_SAMPLES] for name, value in load_arrays(samples).items()}
    names = list(dict.fromkeys(float_tensors(model)))
    found = calibration.measure(model, few, names).tensors
    return {name: (float(np.min(item.low)), float(np.max(item.high))) for name, item in found.items()}


def free_batch(graph: onnx.GraphProto) -> bool:
    """Whether every input and output leaves its first axis free."""
    ports = [item.type.tensor_type.shape.dim for item in (*graph.input, *graph.output)]
    return all(dims and not dims[0].HasField("dim_value") for dims in ports)
