"""Plain C99 for microcontrollers: an int8 network as source code that needs no library and no heap.

`build` reads a TFLite file (written by our own lowering, or the user's own) and `emit` writes it as C on
the kernels in ``sources``; their arithmetic is that of TFLite Micro's reference kernels, bit for bit. What
was written is compiled by the host's compiler with every warning an error, and executed; where there is no
compiler the variant is *prepared*. See docs/targets/c99.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.ports import Arrays
from edgekit_converters.targets.c99.compiler import compiler, compiler_version
from edgekit_converters.targets.routes import Route
from edgekit_converters.values import Built, Job


class C99Target:
    """See the module."""

    name = "c99"
    precisions = ("int8",)
    worker = "plain"
    method = "executed"
    runtime = "c99"

    @property
    def kernel_sets(self) -> tuple[str, ...]:
        """Levels of optimization; none without a compiler."""
        return ("O2", "O0") if compiler() else ()

    def routes(self, kind: str, precision: str) -> tuple[Route, ...]:
        """A quantized TFLite file as it is; everything by the hub."""
        own = Route(name="hub", worker="plain")
        return (Route(name="as_is", worker="plain", needs_hub=False), own) if kind == "tflite" else (own,)

    def build(self, job: Job, folder: Path) -> Built:
        """Write the folder ``c99``.

        Raises:
            Refusal: an operation has no kernel, no calibration, or nothing was quantized.
        """
        from edgekit_converters.targets.c99.build import build

        return build(job, folder)

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> Any:
        """The compiled code; it has one thread, whatever `threads` says."""
        if not self.kernel_sets:
            return None
        from edgekit_converters.targets.c99.runner import C99Session

        return C99Session(folder / artifact.main, artifact, kernels=kernels)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays | None:
        """Execute the code, compiled with -O2."""
        session = self.open(folder, artifact, kernels="O2", threads=1)
        outputs: Mapping[str, Any] | None = None if session is None else session.run(inputs)
        return outputs

    def version(self) -> str:
        """The compiler's own words, or that of the generator."""
        return compiler_version() or "1"
