"""Frontends: one file a kind of source, each ending in an ONNX graph.

`load(source)` imports the frontend when it is used (in a worker process) and returns a `Loaded`
model, which can say its signature, export itself to ONNX and compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from edgekit_converters.values import Signature, Source

_MODULES = {
    "caffe": "caffe_model",
    "keras": "keras_model",
    "lightgbm": "lightgbm_model",
    "onnx": "onnx_model",
    "savedmodel": "saved_model",
    "sklearn": "sklearn_model",
    "tflite": "tflite_model",
    "torch": "torch_model",
    "torchscript": "torchscript_model",
    "xgboost": "xgboost_model",
}


class Loaded(Protocol):
    """A source model in memory. Arrays go by the source's own names; the first axis is the batch."""

    signature: Signature

    def export(self, path: Path) -> Mapping[str, str]:
        """Write the model as ONNX; returns the versions of the tools used."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute all outputs."""


def load(source: Source) -> Loaded:
    """Load `source` with its frontend.

    Raises:
        SourceError: damaged, or something in it is not supported (named).
    """
    module = import_module(f"edgekit_converters.frontends.{_MODULES[source.kind]}")
    loaded: Loaded = module.load(Path(source.path))
    return loaded
