"""The float hub and the stored calibration to a QDQ graph, by onnxruntime's quantizer."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit_converters.errors import Refusal
from edgekit_converters.quantize.calibration import load_ranges

_LOWEST_OPSET = 13
OPS = (
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Softmax",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


def write_int8(hub: Path, ranges: Path | None, out: Path) -> None:
    """Write the QDQ form of `hub`.

    Raises:
        Refusal: no calibration, an opset without per-channel QDQ, or no op to quantize.
    """
    if ranges is None:
        raise Refusal(
            "static int8 needs calibration data",
            remedy="give --calibration FILE.npz with 100 or more real samples",
            code="needs_calibration",
        )
    model = onnx.load(hub)
    opset = next(item.version for item in model.opset_import if item.domain == "")
    if opset < _LOWEST_OPSET:
        raise Refusal(
            f"opset {opset} has no per-channel quantization, {_LOWEST_OPSET} has",
            remedy="export the model with a newer opset",
            code="opset_too_old",
        )
    quantized = _quantized(model, load_ranges(ranges))
    if not any(item.data_type == onnx.TensorProto.INT8 for item in quantized.graph.initializer if item.dims):
        raise Refusal(
            "no op of the graph can be quantized",
            remedy="use fp32: int8 would gain nothing",
            code="nothing_quantized",
        )
    out.write_bytes(quantized.SerializeToString(deterministic=True))


def _quantized(model: onnx.ModelProto, ranges: dict[str, tuple[float, float]]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    pairs: dict[str, Any] = {k: (np.float32(a), np.float32(b)) for k, (a, b) in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, pairs),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=list(OPS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    with contextlib.redirect_stdout(io.StringIO()):
        quantizer.quantize_model()
    result: onnx.ModelProto = quantizer.model.model
    result.producer_name, result.producer_version = "edgekit", ""
    return result
