"""ONNX Runtime: the runtime of ``.onnx`` variants, as ``edgekit.runtimes`` offers it.

Nothing is imported before the first variant is loaded; `edgekit_agent.runtimes.onnxruntime_session`
does the work.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.package import Variant
from edgekit.ports import Session
from edgekit_agent.runtimes.installation import installed_version, only_file

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


class OnnxRuntime:
    """Loads ``.onnx`` variants.

    Args:
        providers: execution providers in order of preference; those the installed build has not
            are left out, the CPU is always last.
    """

    name = "onnxruntime"

    def __init__(self, *, providers: tuple[str, ...] = ()) -> None:
        self._providers = providers

    def version(self) -> str | None:
        """Version installed here, None without ONNX Runtime."""
        return installed_version(*DISTRIBUTIONS)

    def load(self, folder: Path, variant: Variant, *, threads: int = 1) -> Session:
        """Load the variant's one ``.onnx`` file below `folder` (the package folder).

        Raises:
            UnavailableError: ONNX Runtime is not installed, or refuses the file.
        """
        place = only_file(folder, variant, ".onnx")
        from edgekit_agent.runtimes.onnxruntime_session import OnnxSession

        return OnnxSession(place, variant, threads=threads, providers=self._providers)


__all__ = ["DISTRIBUTIONS", "OnnxRuntime"]
