"""TFLite FlatBuffers, built by TensorFlow's converter and executed by LiteRT.

Routes: ``keras`` and ``savedmodel`` sources through their TensorFlow function; ``onnx`` sources
through the canonical hub, rebuilt op by op as a TensorFlow function (`onnx_to_tf`, a documented op
set). Each file gets the contract's names on its tensors and in its signature. TensorFlow is
imported in the building worker only; running needs LiteRT alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekit.ports import Arrays
from edgekit_converters.targets.tflite.runner import LiteRtSession
from edgekit_converters.values import Built, Job

FILE = "model.tflite"


class TfliteTarget:
    """See the module."""

    name = "tflite"
    precisions = ("fp32", "fp16", "dynamic", "int8")
    worker = "tensorflow"
    runtime = "litert"
    kernel_sets = ("xnnpack", "builtin")

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.tflite``; int8 has int8 inputs and outputs.

        Raises:
            Refusal: an op outside the set, no calibration, or nothing was quantized.
        """
        from edgekit_converters.targets.tflite.convert import build

        return build(job, folder / FILE)

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
