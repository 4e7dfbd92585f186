"""Import files: TIDL-RT's of today, the legacy one of AM57x, and the `param.yaml` of the device applications.

Keys as TI's documents name them; what the model's contract does not say is left out rather than guessed.
The keys are those of the first input; a model with several inputs is compiled through the runtime instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_ints, static_shape
from edgekit_converters.targets.tidl import graphs
from edgekit_converters.targets.tidl.made import Made
from edgekit_converters.values import Job

_CAFFE, _ONNX = 0, 2
_BITS = 12


def today(job: Job, made: Made, frames: int) -> str:
    """The file of ``tidl_model_import.out``; paths are relative to the bundle."""
    channels, height, width = image_shape(made.work)
    lines: dict[str, Any] = {
        "modelType": _ONNX,
        "inputNetFile": '"model/model.onnx"',
        "outputNetFile": '"artifacts/tidl_net.bin"',
        "outputParamsFile": '"artifacts/tidl_io_buff"',
        "inData": '"calibration/frames.txt"',
        "inFileFormat": 2,
        "inWidth": width,
        "inHeight": height,
        "inNumChannels": channels,
        "numFrames": frames,
        "inDataNorm": 0,
        "tidlStatsTool": '"PC_dsp_test_dl_algo.out"',
        "perfSimTool": '"ti_cnnperfsim.out"',
        "graphVizTool": '"tidl_graphVisualiser.out"',
    }
    return _pairs(lines)


def legacy(job: Job, made: Made, scale: float) -> str:
    """The file of the import tool for AM5729 and AM5749. Caffe nets are read as they came."""
    caffe = job.source.kind == "caffe"
    channels, height, width = image_shape(graphs.planar(made.work))
    lines = {
        "randParams": 0,
        "modelType": _CAFFE if caffe else _ONNX,
        "quantizationStyle": 1,
        "quantRoundAdd": 50,
        "numParamBits": _BITS,
        "inputNetFile": "model/deploy.prototxt" if caffe else "model/import.onnx",
        "inputParamsFile": "model/net.caffemodel" if caffe else "NA",
        "outputNetFile": "artifacts/tidl_net.bin",
        "outputParamsFile": "artifacts/tidl_params.bin",
        "inElementType": 1,
        "rawSampleInData": 1,
        "sampleInData": "calibration/sample.bin",
        "tidlStatsTool": "eve_test_dl_algo_ref.out",
        "inWidth": width,
        "inHeight": height,
        "inNumChannels": channels,
    }
    note = f"# One step of the raw sample stands for {scale:.9g} of the model's input.\n"
    return note + _pairs(lines)


def raw_sample(made: Made, frames: Mapping[str, Any]) -> tuple[bytes, float]:
    """The first frame of the first input, planar, as signed bytes, and what one step of them stands for."""
    every = next(iter(frames.values()))
    scale = float(np.abs(every).max(initial=0.0)) / 127 or 1.0
    frame = every[0].astype(np.float64)
    first = made.work.graph.inputs[0].consumers()
    if graphs.leading_layout(made.work) and first[0].op_type == "Transpose":
        frame = frame[np.newaxis].transpose(attr_ints(first[0], "perm"))
    whole = np.clip(np.rint(frame / scale), -127, 127)
    return whole.astype(np.int8).tobytes(), scale


def param_yaml(job: Job, made: Made) -> str:
    """What TI's applications on the board read: where things lie, and the preprocessing of the contract."""
    lines = [
        f"task_type: {_task(job)}",
        f"target_device: {made.soc.device}",
        "session:",
        "  session_name: onnxrt",
        "  artifacts_folder: artifacts",
        "  model_folder: model",
        "  model_path: model/model.onnx",
        "  input_details:",
    ]
    for value in made.work.graph.inputs:
        lines += [f"  - name: {_quoted(str(value.name))}", f"    shape: {list(static_shape(value) or ())}"]
    lines.append("  output_details:")
    for value in made.work.graph.outputs:
        lines += [f"  - name: {_quoted(str(value.name))}", f"    shape: {list(static_shape(value) or ())}"]
    lines += _preprocessing(job)
    return "\n".join(lines)


def image_shape(model: ir.Model) -> tuple[int, int, int]:
    """Channels, height and width of the first input; what is no image is one channel with one row."""
    shape = (static_shape(model.graph.inputs[0]) or (1,))[1:]
    padded = (1, 1, 1, *shape)[-3:]
    return padded[0], padded[1], padded[2]


def _preprocessing(job: Job) -> list[str]:
    """TI's applications compute (x - mean) * scale; the contract says x * scale, then (x - mean) / std."""
    inputs: Any = job.contract.get("inputs", ())
    steps = (inputs[0].get("preprocess") if inputs else None) or {}
    factor = float(steps.get("scale") or 1.0)
    mean, std = steps.get("mean") or [0.0], steps.get("std") or [1.0]
    found: dict[str, Any] = {
        "data_layout": inputs[0].get("layout") if inputs else None,
        "resize": list(steps.get("resize") or ()),
        "crop": list(steps.get("crop") or ()),
        "reverse_channels": True if steps.get("color") == "bgr" else None,
    }
    if steps:
        found["mean"] = [float(f"{item / factor:.7g}") for item in mean]
        found["scale"] = [float(f"{factor / item:.7g}") for item in std]
    lines = [f"  {name}: {str(value).lower()}" for name, value in found.items() if value]
    return ["preprocess:", *lines] if lines else []


def _task(job: Job) -> str:
    outputs: Any = job.contract.get("outputs", ())
    found = outputs[0].get("task") if outputs else None
    return str(found or "unknown")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pairs(lines: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {value}" for name, value in lines.items())
