"""ONNX files in web pages: onnxruntime-web (WebAssembly) in headless Chromium, on this machine.

The page's runtime is an npm package, in a folder of its own that ``edgekit tools install web`` makes. Without
it or without a browser nothing runs, and a variant is labelled *prepared*. Pages with an onnxruntime-web of
1.19 or later always use SIMD instructions: there is one set of kernels, run with its graph optimized and as
written, with one thread and two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.ports import Arrays
from edgekit_converters.targets.onnx import OnnxTarget
from edgekit_converters.targets.onnx.web.tool import tools, web_version
from edgekit_converters.values import Built

RUNTIME = "ort-web"


class OnnxWebTarget(OnnxTarget):
    """See the module."""

    runtime = RUNTIME
    tools = ("web", "chromium")

    @property
    def kernel_sets(self) -> tuple[str, ...]:  # type: ignore[override]  # nothing can run without the tools
        """The graph optimized and as written; nothing where the tools are absent."""
        return ("optimized", "as-written") if tools() else ()

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> Any:
        """A session in this process's browser; None without the tools."""
        from edgekit_converters.targets.onnx.web.session import WebSession, the_page

        found = tools()
        if found is None:
            return None
        return WebSession(the_page(*found), folder / artifact.main, kernels=kernels, threads=threads)

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Any:
        """Execute the file in the browser."""
        session = self.open(folder, artifact, kernels="optimized", threads=1)
        return None if session is None else session.run(inputs)

    def version(self) -> str:
        """Version of onnxruntime-web; empty where it is absent."""
        return web_version()
