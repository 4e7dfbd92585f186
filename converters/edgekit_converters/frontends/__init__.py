"""Frontends: one file a kind of source, each ending in an ONNX graph.

`load(source)` imports the frontend when it is used (in a worker process) and returns a `Loaded`
model, which can say its signature, export itself to ONNX and compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from edgekit.errors import SourceError
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


_REMEDIES = {
    "corrupt_source": "the file is damaged, cut off or something else; save or export the model again",
    "not_finite": "the training went wrong, or the file is damaged",
}
_USUAL = "export the model without it, or to ONNX by other means"


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
    with helping(source.path):
        loaded: Loaded = module.load(Path(source.path))
    return loaded


@contextmanager
def helping(where: str) -> Iterator[None]:
    """A SourceError from within names at least the file, and what to do about its kind."""
    try:
        yield
    except SourceError as error:
        error.where = error.where or where
        error.remedy = error.remedy or _REMEDIES.get(str(error.code), _USUAL)
        raise
