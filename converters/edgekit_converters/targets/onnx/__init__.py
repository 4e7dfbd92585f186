"""ONNX files for onnxruntime: the canonical hub itself (fp32), and as QDQ int8 or int4.

int8 is written from the one stored calibration of the hub by `quantize`, under the rules of
onnxruntime: uint8 activations per tensor, int8 weights per channel, symmetric; int4 is weights alone, in
blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekit.package import Requirements
from edgekit.ports import Arrays
from edgekit.rules import load_rules
from edgekit_converters.targets.onnx.session import TargetSession
from edgekit_converters.values import Built, Job

FILE = "model.onnx"
MINIMUM = "1.19.0"
RULES = "onnx-1.31"


class OnnxTarget:
    """See the module."""

    name = "onnx"
    precisions = ("fp32", "int8", "int4")
    worker = "plain"
    imports = ("edgekit_converters.quantize.pipeline",)
    method = "executed"
    runtime = "onnxruntime"
    kernel_sets = ("optimized", "as-written")

    def build(self, job: Job, folder: Path) -> Built:
        """Write ``model.onnx``.

        Raises:
            Refusal: no calibration for int8, or nothing to quantize.
        """
        from edgekit_converters.targets.onnx.inspect import inspect

        path, facts = folder / FILE, {}
        if job.precision != "fp32":
            facts = {"quantization": _write_quantized(job, path)}
        else:
            path.write_bytes(Path(job.hub).read_bytes())
        return Built(
            main=FILE,
            inputs=job.inputs,
            outputs=job.outputs,
            requires=Requirements(runtime=self.runtime, min_runtime=MINIMUM),
            route=f"{job.source.kind} > hub" + (" > QDQ" if job.precision != "fp32" else ""),
            facts={**inspect(path), **facts},
            tools={"onnxruntime": version("onnxruntime")},
        )

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> TargetSession:
        """A session, the graph ``optimized`` or ``as-written``."""
        return TargetSession(folder / artifact.main, kernels=kernels, threads=threads)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays:
        """Execute the file with onnxruntime's CPU provider."""
        return self.open(folder, artifact, kernels="optimized", threads=1).run(inputs)

    def on(self, runtime: str) -> OnnxTarget:
        """The target as another runtime runs its files: ``ort-web`` is onnxruntime-web in a browser."""
        from edgekit_converters.targets.onnx.web import RUNTIME, OnnxWebTarget

        return OnnxWebTarget() if runtime == RUNTIME else self

    def version(self) -> str:
        """Version of onnxruntime."""
        return version("onnxruntime")


def _write_quantized(job: Job, path: Path) -> Mapping[str, Any]:
    """Write the QDQ form of the hub; gives the facts of its making."""
    import onnx_ir as ir

    from edgekit_converters.quantize.pipeline import GOAL, for_target
    from edgekit_converters.quantize.running import serialize

    model, facts = for_target(
        ir.load(job.hub),
        None if job.ranges is None else Path(job.ranges),
        load_rules(job.rules or RULES),
        job.precision,
        samples=None if job.calibration is None else Path(job.calibration),
        goal=float(job.options.get("snr_db", GOAL)),
    )
    path.write_bytes(serialize(model))
    return facts
