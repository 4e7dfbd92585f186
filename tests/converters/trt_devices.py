"""A machine with a fake GPU and a fake trtexec: whether an engine is built anew is decided on it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from edgekit_converters.targets.tensorrt import script

_SMI = 'case "$1" in *compute_cap*) echo "$FAKE_CC";; *) echo "$FAKE_DRIVER";; esac'
_TRTEXEC = """
if [ "$1" = --help ]; then echo "&&&& RUNNING TensorRT.trtexec [TensorRT v$FAKE_TRT] # --help"; exit; fi
echo "$*" >>"$FAKE_LOG"
if [ -n "${FAKE_FAIL:-}" ]; then echo "no kernel found" >&2; exit 1; fi
for word; do case $word in --saveEngine=*) echo engine >"${word#*=}";; esac; done
"""


class Device:
    """A machine with a fake trtexec and a fake nvidia-smi; `calls` says what trtexec was asked."""

    def __init__(self, place: Path, folder: Path) -> None:
        self._place, self.folder, self.cache = place, folder, place / "engines"
        self.facts = {"trt": "100300", "cc": "8.7", "driver": "540.4.0"}
        place.mkdir()
        self._program("nvidia-smi", _SMI)
        self._program("trtexec", _TRTEXEC)

    def _program(self, name: str, text: str) -> None:
        path = self._place / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def build(
        self, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the script as this device."""
        found = {
            "PATH": f"{self._place}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(self._place),
            "EDGEKIT_ENGINES": str(self.cache),
            "FAKE_LOG": str(self._place / "log"),
            "FAKE_TRT": self.facts["trt"],
            "FAKE_CC": self.facts["cc"],
            "FAKE_DRIVER": self.facts["driver"],
            **environment,
        }
        command = ["bash", str(self.folder / script.SCRIPT), *arguments]
        return subprocess.run(command, env=found, capture_output=True, text=True, check=check)

    @property
    def calls(self) -> list[str]:
        """What trtexec was asked to build so far."""
        log = self._place / "log"
        return log.read_text().splitlines() if log.exists() else []
