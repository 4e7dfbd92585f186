"""Core ML ML Programs, lowered from the hub by our own `lower`, checked by our own evaluator.

coremltools runs in a worker of its own that can import neither TensorFlow nor torch. Nothing executes a
package off macOS: the reference evaluator (`evaluate`) computes what the saved program says, so a variant
is *emulated*, never *executed*. The batch is one, as a phone uses it, unless the profile gives a range.

Precisions: ``fp32``, ``fp16``; ``int8`` has int8 weights and activations (from the one calibration, iOS 17);
the others compress the weights alone and compute in float16: ``w8`` int8 per channel, ``int4`` per block
(iOS 18), ``palettized1`` to ``palettized8``, ``sparse50`` and ``sparse75`` (iOS 16); ``pruned`` and
``clustered`` store the zeros and the few distinct values that the engine's search put into the hub's weights.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekit.ports import Arrays
from edgekit_converters.values import Built, Job

FOLDER = "model.mlpackage"
_PALETTES = tuple(f"palettized{bits}" for bits in (8, 6, 4, 3, 2, 1))


class CoremlTarget:
    """See the module."""

    name = "coreml"
    precisions = (
        *("fp16", "fp32", "int8", "w8", "int4", *_PALETTES, "sparse50", "sparse75"),
        *("pruned", "clustered"),
    )
    worker = "coremltools"
    imports = ("edgekit_converters.targets.coreml.convert", "edgekit_converters.targets.coreml.evaluate")
    method = "emulated"
    runtime = "coreml"
    kernel_sets: tuple[str, ...] = ("as written", "float32")

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.mlpackage``.

        Raises:
            Refusal: an op, an attribute, a type or a free size that Core ML does not say exactly, no
                calibration for int8, or weights that did not become smaller.
        """
        from edgekit_converters.targets.coreml.convert import build

        return build(job, folder / FOLDER)

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> Any:
        """The evaluator, ``as written`` or with all floats in ``float32``. In coremltools workers only."""
        from edgekit_converters.targets.coreml.session import EmulatedSession

        return EmulatedSession(folder / artifact.main, artifact, kernels=kernels)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays | None:
        """What the saved program says, as written."""
        found: Arrays = self.open(folder, artifact, kernels="as written", threads=1).run(inputs)
        return found

    def version(self) -> str:
        """Version of coremltools."""
        return version("coremltools")
