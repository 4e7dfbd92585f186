"""TIDL bundles for TI's SoCs: what their compiler needs, checked beforehand, with the arithmetic emulated.

The hub is rewritten into the layers that the SoC has and written in an opset that TI's runtime reads; that
is proven equal in onnxruntime. Which nodes the accelerator takes is decided node by node (`partition`), and
what its integers do to the outputs is computed by a QDQ graph under the SoC's rules, which is what the
verdict judges: a variant is *emulated*. TI's compiler is in no registry; where it is installed (`tools`)
it is run in a process of its own and its artifacts are checked, else the bundle says *not compiled*.
AM5729 and AM5749 have the legacy import tool, its layers and its file (`imports`).
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from edgekit.ports import Arrays
from edgekit_converters.targets.routes import Route
from edgekit_converters.targets.tidl.session import EmulatedSession
from edgekit_converters.values import Built, Job


class TidlTarget:
    """See the module."""

    name = "tidl"
    precisions = ("int8",)
    worker = "plain"
    method = "emulated"
    runtime = "tidl"
    kernel_sets = ("as written",)
    wishes = ("contract",)

    def build(self, job: Job, folder: Path) -> Built:
        """Write the bundle.

        Raises:
            Refusal: no calibration, a rewrite that changes the result, an operator that opset 19 does not
                have, nothing that the accelerator takes, or TI's tools that fail.
            ProfileError: the profile names no known SoC.
        """
        from edgekit_converters.targets.tidl.build import build

        return build(job, folder)

    def routes(self, kind: str, precision: str) -> tuple[Route, ...]:
        """One way, which has another name where TI's tools are: its results are not those without them."""
        from edgekit_converters.targets.tidl import tools

        found = tools.find()
        return (Route(name="" if found is None else f"compiled by {found.folder.name}", worker=self.worker),)

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> EmulatedSession:
        """The saved QDQ graph in onnxruntime, node by node as it is written."""
        return EmulatedSession(folder, artifact, threads=threads)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays:
        """What the emulation gives."""
        return self.open(folder, artifact, kernels="as written", threads=1).run(inputs)

    def version(self) -> str:
        """Version of what computes the emulation."""
        return version("onnxruntime")
