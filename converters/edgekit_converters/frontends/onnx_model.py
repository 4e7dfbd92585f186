"""ONNX models, any opset that onnxruntime runs; upgraded for the hub where the official converter can.

Specification: onnx/docs/IR.md. Old files that list initializers among the inputs are understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import shape_inference, version_converter

from edgekit.errors import SourceError
from edgekit.package import Tensor
from edgekit_converters.values import Signature

OPSET = 18
_CONTROL = {"If", "Loop", "Scan", "SequenceConstruct", "SequenceMap"}


class OnnxModel:
    """An ONNX graph and an onnxruntime session on the unchanged file."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self._model, self._path = model, path
        self._session: Any = None
        initial = {item.name for item in model.graph.initializer}
        inputs = tuple(_port(v, path) for v in model.graph.input if v.name not in initial)
        outputs = tuple(_port(v, path) for v in _with_shapes(model).graph.output)
        self.signature = Signature(
            inputs=inputs,
            outputs=outputs,
            framework=f"onnx {model.producer_name} {model.producer_version}".strip(),
            activation=_activation(model.graph),
        )

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        path.write_bytes(_upgraded(self._model).SerializeToString(deterministic=True))
        return {"onnx": onnx.__version__}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        from edgekit_converters.onnx_session import OnnxSession

        if self._session is None:
            self._session = OnnxSession(self._path, threads=2)
        outputs: dict[str, Any] = self._session.run(inputs)
        return outputs


def load(path: Path) -> OnnxModel:
    """Load and check an ONNX file.

    Raises:
        SourceError: damaged, invalid, with control flow, or with weights that are not finite.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, EncodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        text = " ".join(str(error).split())[:300]
        raise SourceError(
            f"not a valid ONNX model: {text}",
            where=str(path),
            remedy="the file is damaged or something else; export the model again",
            code="corrupt_source",
        ) from error
    _check_nodes(model, path)
    return OnnxModel(model, path)


def _check_nodes(model: onnx.ModelProto, path: Path) -> None:
    if not model.graph.node:
        raise SourceError("the graph is empty", where=str(path), code="corrupt_source")
    for node in model.graph.node:
        if node.op_type in _CONTROL:
            raise SourceError(
                f"node {node.name or node.output[0]!r} is {node.op_type}: control flow is not supported",
                where=str(path),
                remedy="export the model without control flow",
                code="control_flow",
            )
    for item in model.graph.initializer:
        try:
            values = onnx.numpy_helper.to_array(item)
        except ValueError as error:
            raise SourceError(
                f"weight {item.name!r} is damaged: {error}", where=str(path), code="corrupt_source"
            ) from error
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SourceError(
                f"weight {item.name!r} holds NaN or infinity",
                where=str(path),
                remedy="the training went wrong, or the file is damaged",
                code="not_finite",
            )


def _upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at OPSET if the converter knows every op, else as it is."""
    versions = {item.domain: item.version for item in model.opset_import}
    if versions.get("", OPSET) >= OPSET:
        return model
    try:
        upgraded = version_converter.convert_version(model, OPSET)
        onnx.checker.check_model(upgraded)
    except (RuntimeError, ValueError, onnx.checker.ValidationError):
        return model
    return upgraded


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model)
    except (RuntimeError, ValueError):
        return model


def _port(value: onnx.ValueInfoProto, path: Path) -> Tensor:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise SourceError(f"{value.name!r} is not a tensor", where=str(path), code="unsupported_type")
    dims = [item.dim_value if item.HasField("dim_value") else -1 for item in kind.shape.dim]
    if not dims:
        raise SourceError(f"{value.name!r} is a scalar; a batch axis is needed", where=str(path))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return Tensor(name=value.name, dtype=str(dtype), shape=(-1, *dims[1:]))


def _activation(graph: onnx.GraphProto) -> str:
    makers = {name: node.op_type for node in graph.node for name in node.output}
    kind = makers.get(graph.output[0].name, "").lower() if graph.output else ""
    return kind if kind in ("softmax", "sigmoid") else "none"
