"""Core ML ML Programs, lowered from the hub with coremltools' MIL builder.

coremltools runs in a worker of its own that can import neither TensorFlow nor torch. The package is
read back and checked, but nothing executes it off macOS: a variant is *prepared*, never *executed*.
The batch is one, as a phone uses it. int64 and bool are refused at the boundary.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from edgekit.ports import Arrays
from edgekit_converters.values import Built, Job

FOLDER = "model.mlpackage"


class CoremlTarget:
    """See the module."""

    name = "coreml"
    precisions = ("fp16", "fp32")
    worker = "coremltools"
    runtime = "coreml"
    kernel_sets: tuple[str, ...] = ()

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.mlpackage``.

        Raises:
            Refusal: an op outside the documented set, a free axis, or a type Core ML does not take.
        """
        from edgekit_converters.targets.coreml.convert import build

        return build(job, folder / FOLDER)

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> None:
        """Nothing here can run it."""
        return

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays | None:
        """None: prepared only."""
        return None

    def version(self) -> str:
        """Version of coremltools."""
        return version("coremltools")
