"""Arm NN: TFLite files within its parser's allow-list, executed by Arm NN itself in a process of its own.

The file is written by our lowering (`targets.tflite.build`) in the dialect of one Arm NN release: its rules
file says which operators it takes in which form, what it computes wrongly without a word included. Debian's
``pyarmnn`` runs it (`edgekit.armnn`), CpuRef on this machine; where it is absent the variant is *prepared*.
On the way the same file runs in LiteRT on the same samples, and the difference is among the facts. Beside
the model lies ``armnn.json``, with which the agent sets up the delegate.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit import armnn
from edgekit.files import atomic_write
from edgekit.package import Requirements
from edgekit.ports import Arrays
from edgekit.rules import load_rules
from edgekit_converters.targets.armnn.delegate import CONFIGURATION, configuration
from edgekit_converters.targets.armnn.session import ArmnnSession
from edgekit_converters.targets.tflite.build import Dialect
from edgekit_converters.targets.tflite.build import build as written
from edgekit_converters.values import Built, Job

FILE = "model.tflite"
_DIALECT = Dialect(runtime="armnn", name="TFLite for Arm NN", rules="armnn-20.08", free_batch=False)


class ArmnnTarget:
    """See the module."""

    name = "armnn"
    precisions = ("int8", "fp32")
    worker = "plain"
    imports = ("edgekit_converters.targets.tflite.build", "edgekit_converters.quantize.pipeline")
    method = "executed"
    runtime = "armnn"
    tools = ("armnn",)
    threads = (1,)
    """The reference backend has one."""

    @property
    def kernel_sets(self) -> tuple[str, ...]:
        """CpuRef where pyarmnn answers; Neon and Mali backends are not on machines that convert."""
        return ("CpuRef",) if armnn.version() else ()

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.tflite`` and the delegate's configuration.

        Raises:
            Refusal: an op is not in the release's allow-list and has no exact form within it.
        """
        built = written(job, folder / FILE, _DIALECT)
        rules = load_rules(job.rules or _DIALECT.rules)
        atomic_write(folder / CONFIGURATION, configuration(rules.version))
        return replace(
            built,
            requires=Requirements(runtime=self.runtime, min_runtime=rules.version),
            facts={**built.facts, "armnn": rules.version},
        )

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> ArmnnSession | None:
        """A session in a process of its own; None where the release here is older than the file's."""
        return ArmnnSession.on(folder / artifact.main, artifact, backend=kernels)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays | None:
        """Execute the file with CpuRef; None where there is no Arm NN."""
        session = self.open(folder, artifact, kernels="CpuRef", threads=1) if self.kernel_sets else None
        return None if session is None else session.run(inputs)

    def version(self) -> str:
        """The release that runs here, empty where none does."""
        return armnn.version() or ""

    def foreign(self) -> dict[str, str]:
        """Arm NN is outside of this environment, and has a say in what is executed."""
        return {"armnn": self.version()}
