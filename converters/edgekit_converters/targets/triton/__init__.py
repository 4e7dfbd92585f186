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

_OPTIONS = {"accelerator": ("", "tensorrt"), "backend": ("", "armnn_tflite")}


class TritonTarget:
    """See the module.

    Profile options: `accelerator` (tensorrt), `backend` (armnn_tflite), `max_batch`, `queue_delay_us`,
    `versions`, `threads`, `engine_cache`.
    """

    name = "triton"
    precisions = ("fp32", "fp16", "int8")
    worker = "plain"
    method = "executed"
    runtime = "triton"
    tools = ("triton",)
    wishes = ("samples", "contract")
    threads = (1,)
    timed = False
    """What the twin takes over loopback says nothing of production's backends."""

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
        from edgekit_converters.targets.triton.model import RULES, payload_of

        _check(job)
        payload = payload_of(job, folder)
        rules = load_rules(job.rules or RULES)
        serving = repository.write(job, payload, rules, folder)
        facts = {
            "model_name": serving.name,
            "max_batch_size": serving.batch,
            "protobuf_checked": repository.protobuf_read(folder),
            "prepared": ["model_repository"],
        }
        return Built(
            main=repository.PRODUCTION,
            inputs=payload.inputs,
            outputs=payload.outputs,
            requires=Requirements(runtime=self.runtime, min_runtime=None),
            route=payload.route,
            facts={**payload.facts, "triton": facts},
            tools=payload.tools,
        )

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> TritonSession | None:
        """The twin in a real server; None without the sidecar."""
        python = TRITON.python()
        if python is None:
            return None
        return TritonSession(folder, artifact, python, emulates=_absent(folder))

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays | None:
        """Serve the twin once; None without the sidecar."""
        session = self.open(folder, artifact, kernels="python-backend", threads=1)
        return None if session is None else session.run(inputs)

    def version(self) -> str:
        """Version of the tritonserver in the sidecar, empty without it."""
        return SERVER if self.kernel_sets else ""

    def foreign(self) -> dict[str, str]:
        """The server is outside of this environment, and has a say in what is executed."""
        return {"tritonserver": self.version()}


def _check(job: Job) -> None:
    """Refuse what an option cannot be; profiles are checked when they are read, other jobs are not."""
    for name, known in _OPTIONS.items():
        if job.options.get(name, "") not in known:
            raise Refusal(
                f"the option {name} is {job.options[name]!r}",
                remedy=f"{known[-1]} is known; leave it out for onnxruntime on the CPU",
                code="bad_option",
            )


def _absent(folder: Path) -> str:
    """What production computes with and the twin has not; empty where it is the same runtime."""
    if (folder / "plan_repository").is_dir():
        return "TensorRT"
    return "Arm NN" if next((folder / "model_repository").glob("*/1/*.tflite"), None) else ""
