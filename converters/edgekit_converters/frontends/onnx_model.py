"""ONNX models, any opset; the hub brings them up.

Specification: onnx/docs/IR.md. Old files that list initializers among the inputs are understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import shape_inference

from edgekit.errors import SourceError
from edgekit.package import Tensor
from edgekit_converters import hub
from edgekit_converters.frontends.ml_ops import has_ml, rewrite_ml
from edgekit_converters.frontends.ml_ops.zip_map import without_zip_maps
from edgekit_converters.source import weight_files
from edgekit_converters.values import Signature

_CHECKED = 2**31 - 2**20
"""Larger models are checked as files: a message cannot hold them."""


class OnnxModel:
    """An ONNX graph and an onnxruntime session on the unchanged file.

    Of one with ONNX-ML operators `model` is the plain form and `original` runs, maps as tensors.
    """

    def __init__(self, model: onnx.ModelProto, path: Path, original: bytes | None = None) -> None:
        self._model, self._path, self._original = model, path, original
        self._session: Any = None
        initial = {item.name for item in model.graph.initializer}
        inputs = tuple(_port(v, path) for v in model.graph.input if v.name not in initial)
        _check_batch([v for v in model.graph.input if v.name not in initial], path)
        outputs = tuple(_port(v, path) for v in _with_shapes(model).graph.output)
        self.signature = Signature(
            inputs=inputs,
            outputs=outputs,
            framework=f"onnx {model.producer_name} {model.producer_version}".strip(),
            activation=_activation(model.graph),
        )

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        path.write_bytes(self._model.SerializeToString(deterministic=True))
        return {"onnx": onnx.__version__}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        from edgekit_converters.onnx_session import REFUSALS, OnnxSession

        if self._session is None:
            try:
                self._session = OnnxSession(self._original or self._path, threads=2)
            except REFUSALS as error:
                text = " ".join(str(error).split())[:300]
                raise SourceError(
                    f"onnxruntime does not take the graph: {text}",
                    where=str(self._path),
                    remedy="export the model with operators and types that onnxruntime has",
                    code="unsupported_op",
                ) from error
        try:
            outputs: dict[str, Any] = self._session.run(inputs)
        except REFUSALS as error:
            model = self._original or self._path
            raise hub.run_error(model, inputs, error, where=str(self._path)) from error
        return {item.name: outputs[item.name] for item in self.signature.outputs}


def load(path: Path) -> OnnxModel:
    """Load and check an ONNX file.

    Raises:
        SourceError: damaged, invalid, not a dataflow of tensors by known operators (the node is
            named), or with weights that are not finite.
    """
    _check_weights_there(path)
    try:
        model = onnx.load(path)
    except (DecodeError, EncodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise _damaged(error, path) from error
    if not model.graph.node:
        raise SourceError(
            "the graph is empty", where=str(path), remedy="export the model again", code="corrupt_source"
        )
    try:
        onnx.checker.check_model(model if model.ByteSize() < _CHECKED else str(path))
    except (ValueError, onnx.checker.ValidationError) as error:
        # An unknown operator is no damage: the hub says which node it is, or knows it. Nor is one that
        # was withdrawn later.
        if not any(words in str(error) for words in ("No Op registered", "is deprecated")):
            if "topologically sorted" in str(
                error
            ):  # a cycle, or a value that nothing computes: the hub says
                hub.check(model, where=str(path))
            raise _damaged(error, path) from error
    if not has_ml(model):
        hub.check(model, where=str(path))
        return OnnxModel(model, path)
    plain = _without_ml(model, path)
    hub.check(plain, where=str(path))
    return OnnxModel(plain, path, without_zip_maps(model).SerializeToString())


def _check_weights_there(path: Path) -> None:
    """Files beside the model that hold its weights exist."""
    missing = next((item for item in weight_files(path) if not item.is_file()), None)
    if missing is not None:
        raise SourceError(
            f"its weights lie in {missing.name}, which is missing",
            where=str(path),
            remedy=f"copy {missing.name} beside the model",
            code="missing_file",
        )


def _without_ml(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model in plain operators; class labels that are text are left out, their scores say the same."""
    text = {
        item.name for item in model.graph.output if item.type.tensor_type.elem_type == onnx.TensorProto.STRING
    }
    try:
        plain = rewrite_ml(model)
    except SourceError as error:
        error.where = error.where or str(path)
        raise
    kept = [item for item in plain.graph.output if item.name not in text]
    del plain.graph.output[:]
    plain.graph.output.extend(kept)
    return plain


def _damaged(error: Exception, path: Path) -> SourceError:
    text = " ".join(str(error).split())[:300]
    return SourceError(
        f"not a valid ONNX model: {text}",
        where=str(path),
        remedy="the file is damaged or something else; export the model again",
        code="corrupt_source",
    )


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model)
    except (RuntimeError, ValueError):
        return model


def _port(value: onnx.ValueInfoProto, path: Path) -> Tensor:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise SourceError(
            f"{value.name!r} is not a tensor",
            where=str(path),
            remedy="export the model with tensors as its inputs and outputs",
            code="unsupported_type",
        )
    dims = [item.dim_value if item.HasField("dim_value") else -1 for item in kind.shape.dim]
    if not dims:
        raise SourceError(
            f"{value.name!r} is a scalar; a batch axis is needed",
            where=str(path),
            remedy="give it a first axis that counts the samples (Unsqueeze, or keepdims=1 in a reduction)",
            code="no_batch_axis",
        )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    except KeyError as error:
        raise SourceError(
            f"{value.name!r} has no known element type",
            where=str(path),
            remedy="export the model with its types inferred",
            code="unsupported_type",
        ) from error
    return Tensor(name=value.name, dtype=str(dtype), shape=(-1, *dims[1:]))


def _check_batch(inputs: list[onnx.ValueInfoProto], path: Path) -> None:
    """The first axis counts the samples: a size above one is the same for all inputs."""
    dims = {item.name: item.type.tensor_type.shape.dim[0] for item in inputs}
    sizes = {dim.dim_value for dim in dims.values()}
    if len(sizes) < 2 or sizes <= {0, 1}:
        return
    found = ", ".join(f"{name!r} has {dim.dim_value or 'any'}" for name, dim in dims.items())
    raise SourceError(
        f"the first axis counts the samples, but the inputs differ in it: {found}",
        where=str(path),
        remedy="export the model with a free batch, or a batch of one, for every input",
        code="fixed_batch",
    )


def _activation(graph: onnx.GraphProto) -> str:
    makers = {name: node.op_type for node in graph.node for name in node.output}
    kind = makers.get(graph.output[0].name, "").lower() if graph.output else ""
    return kind if kind in ("softmax", "sigmoid") else "none"
