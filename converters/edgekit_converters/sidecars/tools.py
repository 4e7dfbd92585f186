"""Every foreign tool that a target can use here: found or absent, and how to get it.

The sidecars are ours to install; the others belong to the system (Debian packages, vendors' kits) and are
only looked for, without importing or starting any of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import UsageError
from edgekit.tomlfile import did_you_mean
from edgekit_converters.sidecars import SIDECARS, Sidecar

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PYARMNN = Path("/usr/lib/python3/dist-packages/pyarmnn")
"""Where Debian's package puts it; only Debian's own interpreter loads it."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One foreign tool: `place` is where it was found, None when it is absent; `get` how it is got.

    `installable`: whether ``edgekit tools install`` brings it.
    """

    name: str
    title: str
    version: str | None
    place: str | None
    get: str
    installable: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "found": self.place is not None}


@dataclass(frozen=True, kw_only=True)
class _Probe:
    name: str
    title: str
    get: str
    look: Callable[[], Path | None]

    def tool(self) -> Tool:
        found = self.look()
        place = None if found is None else str(found)
        return Tool(
            name=self.name, title=self.title, version=None, place=place, get=self.get, installable=False
        )


def tools() -> tuple[Tool, ...]:
    """All foreign tools, sidecars first."""
    return (*(_installed(item) for item in SIDECARS), *(probe.tool() for probe in _PROBES))


def remedy(target: object) -> str:
    """How the tools are got that a target names (`tools`) and that are absent here; empty for none."""
    names = getattr(target, "tools", ())
    absent = [item.get for item in tools() if item.name in names and item.place is None]
    return f"; to run it: {', '.join(absent)}" if absent else ""


def sidecar_called(name: str) -> Sidecar:
    """The sidecar `name`.

    Raises:
        UsageError: there is none; for a tool of the system with how it is got.
    """
    found = next((item for item in SIDECARS if item.name == name), None)
    if found is not None:
        return found
    probe = next((item for item in _PROBES if item.name == name), None)
    if probe is not None:
        raise UsageError(f"edgekit does not install {name!r}", remedy=probe.get, code="not_installable")
    known = [item.name for item in SIDECARS]
    raise UsageError(f"unknown tool {name!r}", remedy=did_you_mean(name, known), code="unknown_tool")


def _installed(sidecar: Sidecar) -> Tool:
    place = sidecar.ready()
    return Tool(
        name=sidecar.name,
        title=sidecar.title,
        version=sidecar.version,
        place=None if place is None else str(sidecar.folder),
        get=f"edgekit tools install {sidecar.name} (about {sidecar.megabytes} MB)",
        installable=True,
    )


def _in_path(*programs: str) -> Callable[[], Path | None]:
    def look() -> Path | None:
        found = next(filter(None, map(shutil.which, programs)), None)
        return None if found is None else Path(found)

    return look


def _named_by(variable: str, *below: str) -> Callable[[], Path | None]:
    """The folder that an environment variable names, if what a working one holds is there."""

    def look() -> Path | None:
        folder = Path(os.environ.get(variable) or os.devnull)
        return folder if folder.is_dir() and all((folder / item).exists() for item in below) else None

    return look


_PROBES = (
    _Probe(
        name="armnn",
        title="Arm NN with its Python binding",
        get="apt-get install libarmnn22 libarmnntfliteparser22 libarmnn-cpuref-backend22 python3-pyarmnn",
        look=lambda: PYARMNN if PYARMNN.is_dir() else None,
    ),
    _Probe(
        name="tidl",
        title="TI Deep Learning tools (edgeai-tidl-tools)",
        get="unpack TI's tidl_tools, set TIDL_TOOLS_PATH to it and EDGEKIT_TIDL_PYTHON to TI's Python",
        look=_named_by("TIDL_TOOLS_PATH"),
    ),
    _Probe(
        name="tflm",
        title="TensorFlow Lite Micro, C++ sources",
        get="clone tflite-micro and set TFLM_ROOT to it",
        look=_named_by("TFLM_ROOT", "tensorflow/lite/micro"),
    ),
    _Probe(
        name="chromium",
        title="Chromium, headless, in which onnxruntime-web runs",
        get="apt-get install chromium",
        look=_in_path(*CHROMIUM),
    ),
)
