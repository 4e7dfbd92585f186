"""TensorFlow Lite Micro: full-integer TFLite files for microcontrollers, run by the `tflite-micro` wheel.

The file is written by the lowering of the ``tflite`` target in TFLM's dialect (`build`): batch one, only
operators that the rules list, nothing hybrid. The wheel runs it here and says how much memory it takes
(`arena`); whether that fits a board is the engine's to decide. Beside the file lie the sources of a program
for it (`project`), compiled only where ``TFLM_ROOT`` names TFLM's own sources (`toolchain`), and for boards
with an Ethos-U what Vela makes of the file (`vela`). Without the wheel nothing runs: *prepared*.
Documented in docs/targets/tflm.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from edgekit.ports import Arrays
from edgekit_converters.targets.routes import Route
from edgekit_converters.targets.tflm.names import PACKAGE, ROOT
from edgekit_converters.targets.tflm.session import TflmSession
from edgekit_converters.values import Built, Job


class TflmTarget:
    """See the module."""

    name = "tflm"
    precisions = ("int8", "int16x8", "fp32")
    worker = "plain"
    method = "executed"
    runtime = "tflm"
    imports = ("edgekit_converters.targets.tflm.build", "edgekit_converters.quantize.pipeline")

    @property
    def kernel_sets(self) -> tuple[str, ...]:
        """The wheel has TFLM's reference kernels; without the wheel there are none."""
        return ("reference",) if find_spec("tflite_micro") is not None else ()

    def routes(self, kind: str, precision: str) -> tuple[Route, ...]:
        """A TFLite source is taken as it is where that will do; everything comes by the hub."""
        own = Route(name="hub", worker="plain")
        if kind == "tflite" and precision in ("fp32", "int8"):
            return Route(name="as_is", worker="plain", needs_hub=False), own
        return (own,)

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.tflite`` and what belongs to it.

        Raises:
            Refusal: an op has no kernel in TFLM, no calibration, or TFLM does not take the file.
        """
        from edgekit_converters.targets.tflm.build import build

        return build(job, folder)

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> TflmSession:
        """A session; TFLM has one kernel set and one thread."""
        return TflmSession(folder / artifact.main, artifact)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays:
        """Execute the file."""
        return self.open(folder, artifact, kernels="reference", threads=1).run(inputs)

    def version(self) -> str:
        """Version of the wheel, empty where there is none."""
        try:
            return version(PACKAGE)
        except PackageNotFoundError:
            return ""

    def foreign(self) -> Mapping[str, str]:
        """Tools outside this environment that have a say in what is built, with their versions."""
        from edgekit_converters.sidecars import VELA

        found = {"tflite-micro": self.version(), "tflm_root": os.environ.get(ROOT, "")}
        return {**found, "vela": VELA.version if VELA.python() is not None else ""}


__all__ = ["TflmTarget"]
