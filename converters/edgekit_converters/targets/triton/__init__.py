"""Triton model repositories: production written and checked, its twin served by a real tritonserver.

`config` says what is configured, `check` whether Triton takes it, `repository` where the files lie, `served`
runs the twin. The production configuration names backends (onnxruntime, tensorrt) that the one tritonserver
a package index has does not carry, so the twin (Python backend, onnxruntime inside, the same file and the
same names, batching and warm-up) is what is executed; with TensorRT as accelerator it stands in for other
arithmetic and counts as emulated. Without the sidecar `triton` nothing runs: *prepared*.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.package import Requirements
from edgekit.ports import Arrays
from edgekit.rules import load_rules
from edgekit_converters.errors import Refusal
from edgekit_converters.sidecars import TRITON
from edgekit_converters.targets.triton.served import SERVER, TritonSession
from edgekit_converters.values import Built, Job

ACCELERATORS = ("", "tensorrt")


class TritonTarget:
    """See the module. Profile options: `accelerator`, `max_batch`, `queue_delay_us`, `versions`, `threads`,
    `engine_cache`.
    """

    name = "triton"
    precisions = ("fp32", "fp16", "int8")
    worker = "plain"
    method = "executed"
    runtime = "triton"
    wishes = ("samples", "contract")
    threads = (1,)

    @property
    def kernel_sets(self) -> tuple[str, ...]:
        """What can be served here: nothing without the sidecar."""
        return () if TRITON.python() is None else ("python-backend",)

    def build(self, job: Job, folder: Path) -> Built:
        """Write the repositories.

        Raises:
            Refusal: no calibration for int8, nothing to quantize, a type or an option Triton does not take.
        """
        from edgekit_converters.targets.triton import repository
        from edgekit_converters.targets.triton.model import RULES, model_of

        if job.options.get("accelerator", "") not in ACCELERATORS:
            raise Refusal(
                f"the option accelerator is {job.options['accelerator']!r}",
                remedy="tensorrt is known; leave it out for the CPU",
                code="bad_option",
            )
        model = model_of(job)
        rules = load_rules(job.rules or RULES)
        serving = repository.write(job, model.data, model.free_batch, rules, folder)
        facts = {
            "model_name": serving.name,
            "max_batch_size": serving.batch,
            "protobuf_checked": repository.protobuf_read(folder),
            "prepared": ["model_repository"],
        }
        return Built(
            main=repository.PRODUCTION,
            inputs=job.inputs,
            outputs=job.outputs,
            requires=Requirements(runtime=self.runtime, min_runtime=None),
            route=model.route,
            facts={**model.facts, "triton": facts},
            tools=model.tools,
        )

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> TritonSession | None:
        """The twin in a real server; None without the sidecar."""
        python = TRITON.python()
        if python is None:
            return None
        accelerated = (folder / "plan_repository").is_dir()
        return TritonSession(folder, artifact, python, emulates="TensorRT" if accelerated else "")

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays | None:
        """Serve the twin once; None without the sidecar."""
        session = self.open(folder, artifact, kernels="python-backend", threads=1)
        return None if session is None else session.run(inputs)

    def version(self) -> str:
        """Version of the tritonserver in the sidecar, empty without it."""
        return SERVER if self.kernel_sets else ""
