"""Arm NN: the runtime of ``armnn`` variants, as ``edgekit.runtimes`` offers it.

Two ways, the first that is there: LiteRT with upstream's delegate library (``libarmnnDelegate.so``, from
``$EDGEKIT_ARMNN_DELEGATE`` or a usual folder), or Debian's pyarmnn in a child process that may crash alone.
The variant's ``armnn.json`` says which backends are preferred. Nothing of Arm NN is imported here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit import armnn
from edgekit.errors import UnavailableError
from edgekit.package import Variant
from edgekit.ports import Session
from edgekit_agent.runtimes.installation import installed_version, only_file
from edgekit_agent.runtimes.litert import DISTRIBUTIONS

CONFIGURATION = "armnn.json"
VARIABLE = "EDGEKIT_ARMNN_DELEGATE"
_LIBRARY = "libarmnnDelegate.so"
_FOLDERS = ("/usr/lib", "/usr/local/lib", "/opt/armnn", "/opt/arm/armnn")


class ArmnnRuntime:
    """Loads ``armnn`` variants."""

    name = "armnn"

    def version(self) -> str | None:
        """The release that computes here, None when neither way is open."""
        library = delegate_library()
        return release_beside(library) if library is not None else armnn.version()

    def load(self, folder: Path, variant: Variant, *, threads: int = 1) -> Session:
        """Load the variant's one ``.tflite`` file below `folder` (the package folder).

        Raises:
            UnavailableError: no Arm NN is installed, or it refuses the file or crashes on it.
        """
        place = only_file(folder, variant, ".tflite")
        options = configured(place.with_name(CONFIGURATION))
        library = delegate_library()
        if library is not None:
            return _by_delegate(library, options, place, variant, threads)
        if armnn.version() is None:
            raise UnavailableError(
                "Arm NN is not installed",
                where="runtime armnn",
                remedy=f"apt-get install {armnn.PACKAGES}, or put {_LIBRARY} beside libarmnn.so",
                code="runtime_missing",
            )
        from edgekit_agent.runtimes.armnn_session import ArmnnSession

        backends = [name for name in str(options["backends"]).split(",") if name]
        return ArmnnSession(place, variant, backends=backends)


def configured(path: Path) -> dict[str, str]:
    """The delegate's options from the variant's file; the usual ones where it says nothing readable."""
    usual = {"backends": ",".join(armnn.BACKENDS)}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["delegate"]
    except (OSError, ValueError, KeyError, TypeError):
        return usual
    if not isinstance(found, dict):
        return usual
    return {**usual, **{str(key): str(value) for key, value in found.items()}}


def delegate_library() -> Path | None:
    """The delegate, where it and a LiteRT to load it are installed and its release can be told."""
    if installed_version(*DISTRIBUTIONS) is None:
        return None
    named = os.environ.get(VARIABLE)
    places = [Path(named)] if named else [item for base in _FOLDERS for item in _below(Path(base))]
    return next((item for item in places if item.is_file() and release_beside(item)), None)


def _below(folder: Path) -> Sequence[Path]:
    """The library in a folder or its multiarch folders."""
    return [folder / _LIBRARY, *sorted(folder.glob(f"*-linux-gnu*/{_LIBRARY}"))]


def release_beside(library: Path) -> str | None:
    """The release by the name of the ``libarmnn.so.<major>`` in the same folder."""
    names = (item.name for item in library.parent.glob("libarmnn.so.*"))
    numbers = [
        found[1] for name in names if (found := re.fullmatch(r"libarmnn\.so\.(\d+)(?:\.[\d.]+)?", name))
    ]
    return armnn.release(max(numbers, key=int)) if numbers else None


def _by_delegate(
    library: Path, options: dict[str, str], place: Path, variant: Variant, threads: int
) -> Session:
    """LiteRT with the delegate; what the delegate does not take LiteRT computes."""
    from edgekit_agent.runtimes.litert_session import Delegate, LiteRtSession

    def load() -> Any:
        try:
            from ai_edge_litert.interpreter import load_delegate
        except ImportError:
            from tflite_runtime.interpreter import load_delegate
        return load_delegate(str(library), options={**options, "number-of-threads": str(threads)})

    delegate = Delegate(name=f"armnn:{options['backends']}", load=load)
    return LiteRtSession(place, variant, threads=threads, pool=1, delegate=delegate)


__all__ = ["CONFIGURATION", "VARIABLE", "ArmnnRuntime"]
