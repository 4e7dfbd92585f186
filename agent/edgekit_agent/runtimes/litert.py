"""LiteRT (TensorFlow Lite): the runtime of ``.tflite`` variants, as ``edgekit.runtimes`` offers it.

`ai-edge-litert` is used where it is installed, else `tflite-runtime`, which old images have. Nothing is
imported before the first variant is loaded; `edgekit_agent.runtimes.litert_session` does the work.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.package import Variant
from edgekit.ports import Session
from edgekit_agent.runtimes.installation import installed_version, only_file

DISTRIBUTIONS = ("ai-edge-litert", "tflite-runtime")


class LiteRtRuntime:
    """Loads ``.tflite`` variants.

    Args:
        pool: how many requests may compute at once. Each needs an interpreter of its own (they are not
            thread-safe), made when it is first needed; weights are shared through the file's mapping.
    """

    name = "litert"

    def __init__(self, *, pool: int = 2) -> None:
        self._pool = pool

    def version(self) -> str | None:
        """Version installed here, None without LiteRT."""
        return installed_version(*DISTRIBUTIONS)

    def load(self, folder: Path, variant: Variant, *, threads: int = 1) -> Session:
        """Load the variant's one ``.tflite`` file below `folder` (the package folder).

        Raises:
            UnavailableError: LiteRT is not installed, or refuses the file.
        """
        place = only_file(folder, variant, ".tflite")
        from edgekit_agent.runtimes.litert_session import LiteRtSession

        return LiteRtSession(place, variant, threads=threads, pool=self._pool)


__all__ = ["DISTRIBUTIONS", "LiteRtRuntime"]
