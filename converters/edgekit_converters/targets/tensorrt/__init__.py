"""TensorRT on the device itself, as on a Jetson: the ONNX file it builds from, and the script that builds.

No engine can be built here (they hold for one GPU, TensorRT and driver, and there is none): `script` writes
what builds one there and keeps it, labelled *prepared*. `graph` writes the file; onnxruntime computes it
here with optimizations off, op by op in the types that the graph says, which is an *emulation*: TensorRT did
not run.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from edgekit.package import Requirements
from edgekit.ports import Arrays
from edgekit.rules import load_rules
from edgekit_converters.targets.onnx.session import TargetSession
from edgekit_converters.values import Built, Job

FILE = "model.onnx"
RULES = "tensorrt-10.3"
BATCH = 8


class TensorrtTarget:
    """See the module. Profile option: `max_batch`, the largest batch that the engine takes."""

    name = "tensorrt"
    precisions = ("fp32", "fp16", "int8")
    worker = "plain"
    method = "emulated"
    runtime = "tensorrt"
    kernel_sets = ("as-written",)
    wishes = ("samples", "contract")

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.onnx`` and ``build_engine.sh``.

        Raises:
            Refusal: no calibration for int8, nothing to quantize, or a graph that TensorRT does not take.
        """
        from edgekit_converters.targets.onnx.inspect import inspect
        from edgekit_converters.targets.tensorrt import graph, script

        made = graph.make(job, RULES)
        (folder / FILE).write_bytes(made.data)
        rules = load_rules(job.rules or RULES)
        batch = int(job.options.get("max_batch", BATCH)) if made.free_batch else 0
        script.write(
            folder,
            ref=f"{job.contract.get('name', 'model')}@{job.contract.get('version', '')}",
            model=FILE,
            inputs=job.inputs,
            rules=rules,
            precision=job.precision,
            batch=batch,
        )
        return Built(
            main=FILE,
            inputs=job.inputs,
            outputs=job.outputs,
            requires=Requirements(runtime=self.runtime, min_runtime=rules.version),
            route=made.route,
            facts={**inspect(made.data), **made.facts, "max_batch": batch, "prepared": [script.SCRIPT]},
            tools=made.tools,
        )

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> EmulatedSession:
        """onnxruntime on the CPU, the graph as written."""
        return EmulatedSession(folder / artifact.main, threads=threads)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays:
        """Emulate the file on the CPU."""
        return self.open(folder, artifact, kernels="as-written", threads=1).run(inputs)

    def version(self) -> str:
        """Version of onnxruntime, which stands in."""
        return version("onnxruntime")


class EmulatedSession(TargetSession):
    """onnxruntime in place of TensorRT, and saying so."""

    def __init__(self, path: Path, *, threads: int) -> None:
        super().__init__(path, kernels="as-written", threads=threads)
        self.backend = f"{self.backend}; TensorRT did not run"
        self.ran = {"method": "emulated", "runtime": "onnxruntime", "version": version("onnxruntime")}
