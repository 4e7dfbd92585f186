"""TFLite FlatBuffers, written by our own lowering of the hub and executed by LiteRT.

Routes, tried in this order: for ``tflite`` sources the file itself (`as_is`); the hub and `lower`, without
TensorFlow, for every source; and, for ``keras`` and ``savedmodel`` sources whose route through the hub is
refused, TensorFlow's converter (`convert`). Each file has the contract's names in its signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekit.ports import Arrays
from edgekit_converters.targets.routes import Route
from edgekit_converters.targets.tflite.runner import LiteRtSession
from edgekit_converters.values import Built, Job

FILE = "model.tflite"
_BY_TENSORFLOW = ("fp32", "fp16", "dynamic", "int8")


class TfliteTarget:
    """See the module."""

    name = "tflite"
    precisions = ("fp32", "fp16", "dynamic", "int8", "int16x8", "int4")
    worker = "plain"
    imports = ("edgekit_converters.targets.tflite.build", "edgekit_converters.quantize.pipeline")
    method = "executed"
    runtime = "litert"
    kernel_sets = ("xnnpack", "builtin")

    def routes(self, kind: str, precision: str) -> tuple[Route, ...]:
        """Ways to build from a source of `kind`, the cheapest first."""
        own = Route(name="hub", worker="plain")
        if kind == "tflite" and precision in ("fp32", "int8"):
            return Route(name="as_is", worker="plain", needs_hub=False), own
        foreign = kind in ("keras", "savedmodel") and precision in _BY_TENSORFLOW
        return (own, Route(name="tensorflow", worker="tensorflow", needs_hub=False)) if foreign else (own,)

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.tflite`` by the route that the job's options name; int8 has int8 ports.

        Raises:
            Refusal: an op has no exact lowering, no calibration, or nothing was quantized.
        """
        if job.options.get("route") == "tensorflow":
            from edgekit_converters.targets.tflite.convert import build as by_tensorflow

            return by_tensorflow(job, folder / FILE)
        if job.options.get("route") == "as_is":
            from edgekit_converters.targets.tflite.as_is import build as as_it_is

            return as_it_is(job, folder / FILE)
        from edgekit_converters.targets.tflite.build import build as by_hub

        return by_hub(job, folder / FILE)

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> LiteRtSession:
        """A session on the kernel set ``xnnpack`` (LiteRT's default) or ``builtin``."""
        return LiteRtSession(folder / artifact.main, artifact, kernels=kernels, threads=threads)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays:
        """Execute the file with LiteRT's default kernels."""
        outputs: Mapping[str, Any] = self.open(folder, artifact, kernels="xnnpack", threads=1).run(inputs)
        return outputs

    def version(self) -> str:
        """Version of LiteRT."""
        return version("ai-edge-litert")
