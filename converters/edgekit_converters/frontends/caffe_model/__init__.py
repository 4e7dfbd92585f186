"""Caffe models: a deploy net (``.prototxt``) and its weights (``.caffemodel``), without Caffe.

`text` and `wire` read the two formats, `net` makes layers of them, `windows`, `pointwise` and
`arrangement` write them as ONNX. OpenCV's importer (below version 5) computes the source where it is
installed and knows the layers; otherwise our own reading does, and the signature's framework says so.
Specification: ``caffe.proto`` and Caffe's layer catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.errors import SourceError
from edgekit.package import Tensor
from edgekit_converters.frontends.caffe_model import arrangement, pointwise, windows
from edgekit_converters.frontends.caffe_model.graph import to_onnx
from edgekit_converters.frontends.caffe_model.net import Net, read_net
from edgekit_converters.frontends.caffe_model.text import parse
from edgekit_converters.frontends.caffe_model.wire import blobs_by_layer
from edgekit_converters.source import caffe_pair
from edgekit_converters.values import Signature

_KINDS = {**arrangement.KINDS, **pointwise.KINDS, **windows.KINDS}


class CaffeModel:
    """A net, its ONNX form, and OpenCV's reading of it where there is one."""

    def __init__(self, net: Net, model: onnx.ModelProto, outputs: Mapping[str, Any], oracle: Any) -> None:
        self._net, self._model, self._oracle = net, model, oracle
        self._session: Any = None
        kinds = {top: layer.kind for layer in net.layers for top in layer.tops}
        last = kinds.get(net.outputs[0], "")
        self.signature = Signature(
            inputs=tuple(_port(name, shape) for name, shape in net.inputs.items()),
            outputs=tuple(_port(name, shape) for name, shape in outputs.items()),
            framework=f"caffe, computed by {oracle.name if oracle else 'our own reading of the net'}",
            activation={"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(last, "none"),
        )

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        path.write_bytes(self._model.SerializeToString(deterministic=True))
        return {"onnx": onnx.__version__}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        if self._oracle is not None:
            found: dict[str, Any] = self._oracle.run(inputs, self._net.outputs)
            return found
        from edgekit_converters.onnx_session import OnnxSession

        if self._session is None:
            self._session = OnnxSession(self._model.SerializeToString())
        answers = self._session.run(inputs)
        return {name: answers[f"{name}__out"] for name in self._net.outputs}


def load(path: Path) -> CaffeModel:
    """Load a net and its weights.

    Raises:
        SourceError: damaged, not for inference, or with layers that are not supported (named).
    """
    net_path, weights_path = caffe_pair(path)
    net = _read(net_path, weights_path)
    try:
        model, outputs = to_onnx(net, _KINDS)
    except SourceError as error:
        raise SourceError(error.message, where=str(net_path), remedy=error.remedy, code=error.code) from error
    return CaffeModel(net, model, outputs, _oracle(net, net_path, weights_path))


def _read(net_path: Path, weights_path: Path) -> Net:
    data = weights_path.read_bytes()
    if not data:
        raise _damaged(weights_path, "the file is empty")
    try:
        weights = blobs_by_layer(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise _damaged(weights_path, f"not a whole Caffe model: {error}") from error
    for name, blobs in weights.items():
        if not all(np.isfinite(blob).all() for blob in blobs):
            raise SourceError(
                f"a weight of layer {name!r} holds NaN or infinity",
                where=str(weights_path),
                remedy="the training went wrong, or the file is damaged",
                code="not_finite",
            )
    try:
        return read_net(parse(net_path.read_text("utf-8")), weights)
    except SourceError as error:
        raise SourceError(error.message, where=str(net_path), remedy=error.remedy, code=error.code) from error
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise _damaged(net_path, f"not a net: {error}") from error


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(why, where=str(path), remedy="copy or save it again", code="corrupt_source")


class _OpenCv:
    """OpenCV's importer, sample by sample. It names values by the layer that gives them."""

    def __init__(self, cv2: Any, importer: Any, net: Net) -> None:
        self.name = f"opencv {cv2.__version__}"
        self._importer, self._inputs = importer, list(net.inputs)
        makers = {top: layer.name for layer in net.layers for top in layer.tops[:1]}
        self._makers = [makers[name] for name in net.outputs]

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """All outputs for all samples."""
        parts: dict[str, list[Any]] = {name: [] for name in outputs}
        for i in range(len(inputs[self._inputs[0]])):
            for name in self._inputs:
                self._importer.setInput(np.ascontiguousarray(inputs[name][i : i + 1]), name)
            for name, value in zip(outputs, self._importer.forward(self._makers), strict=True):
                parts[name].append(np.array(value))
        return {name: np.concatenate(values) for name, values in parts.items()}


def _oracle(net: Net, net_path: Path, weights_path: Path) -> _OpenCv | None:
    """OpenCV on these files; None where it is not installed or does not take the net."""
    try:
        import cv2

        read = cv2.dnn.readNetFromCaffe
    except (ImportError, AttributeError):
        return None
    try:
        found = _OpenCv(cv2, read(str(net_path), str(weights_path)), net)
        zeros = {name: np.zeros((1, *shape[1:]), np.float32) for name, shape in net.inputs.items()}
        found.run(zeros, net.outputs)
    except (cv2.error, KeyError):  # KeyError: an output is a second top, which it cannot name
        return None
    return found


def _port(name: str, shape: Any) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=(-1, *shape[1:]))
