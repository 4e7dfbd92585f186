"""What this machine truly is: the `DeviceFacts` it enrols with and publishes.

Read from the kernel, the operating system and the installed distributions; nothing is faked and no
runtime is imported. ``python -m edgekit_agent.detect HOME`` prints the facts as JSON: the resident
agent asks that way, because package metadata and the profile files would stay in its memory.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.documents import DeviceFacts
from edgekit.errors import DocumentError, UnavailableError
from edgekit.ports import Runtime
from edgekit_agent.config import Config, Home, load_config

GROUP = "edgekit.runtimes"
_BOARD = Path("/proc/device-tree/model")
_DMI = Path("/sys/devices/virtual/dmi/id/product_name")


@dataclass(frozen=True, kw_only=True)
class Detected:
    """The facts, and where each usable runtime's class is (``module:attribute``)."""

    facts: DeviceFacts
    runtimes: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"facts": self.facts.to_dict(), "runtimes": dict(self.runtimes)}


def detect(config: Config) -> Detected:
    """Look at this machine, within the owner's allow-lists."""
    from importlib import metadata

    from edgekit.profile import match_profiles

    places = runtime_places(config)
    versions = {name: found for name, place in places.items() if (found := _version(place)) is not None}
    facts = DeviceFacts(
        machine=platform.machine(),
        agent=metadata.version("edgekit-agent"),
        python=platform.python_version(),
        os=os_name(),
        model=board_model(),
        cpu_count=os.cpu_count() or 1,
        cpu_features=cpu_features(_text(Path("/proc/cpuinfo"))),
        memory_mb=memory_mb(_text(Path("/proc/meminfo"))),
        runtimes=versions,
        precisions=config.precisions,
        labels=config.labels,
    )
    usable = {name: places[name] for name in versions}
    return Detected(facts=replace(facts, profiles=match_profiles(facts)), runtimes=usable)


def detect_apart(home: Home) -> Detected:
    """`detect` in a process that exits afterwards.

    Raises:
        UnavailableError: it failed.
    """
    command = [sys.executable, "-m", "edgekit_agent.detect", str(home.path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    if done.returncode != 0:
        detail = done.stderr.decode("utf-8", "replace").strip()[-400:]
        raise UnavailableError(f"this machine could not be looked at: {detail}", code="detect_failed")
    try:
        answer = json.loads(done.stdout)
        return Detected(facts=DeviceFacts.from_dict(answer["facts"]), runtimes=answer["runtimes"])
    except (ValueError, KeyError, DocumentError) as error:
        raise UnavailableError(f"unreadable facts: {error}", code="detect_failed") from error


def runtime_places(config: Config) -> dict[str, str]:
    """Registered runtimes the owner allows: name → ``module:attribute``."""
    from importlib import metadata

    found = {item.name: item.value for item in metadata.entry_points(group=GROUP)}
    return {name: place for name, place in found.items() if not config.runtimes or name in config.runtimes}


def make_runtime(place: str) -> Runtime:
    """The runtime plug-in at ``module:attribute``; the runtime itself is imported when it loads."""
    module, _, attribute = place.partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), attribute)()
    return runtime


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """Feature names of the first processor in ``/proc/cpuinfo``, sorted."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return tuple(sorted(set(value.split())))
    return ()


def memory_mb(meminfo: str) -> int:
    """Whole memory in MiB from ``/proc/meminfo``, 0 when unknown."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def board_model() -> str | None:
    """The board's own name, from the device tree (ARM) or the firmware (PC), None when it has none."""
    return (_text(_BOARD).strip("\0 \n") or _text(_DMI).strip()) or None


def os_name() -> str:
    """Name of the operating system for people."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.release()}".strip()


def _version(place: str) -> str | None:
    try:
        return make_runtime(place).version()
    except (ImportError, AttributeError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    json.dump(detect(load_config(Home(path=Path(sys.argv[1])).config)).to_dict(), sys.stdout)
