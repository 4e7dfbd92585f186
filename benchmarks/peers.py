"""Other converters, each installed beside our own environment and run in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, Skipped

PLACE = ROOT / "benchmarks" / ".peers"
PACKAGES = {
    "onnx2tf": ("onnx2tf==2.6.9", "sne4onnx==2.0.1", "sng4onnx==2.0.1", "tqdm==4.70.1", "h5py==3.16.0"),
    "onnx2torch": ("onnx2torch==1.5.15",),
}
"""Each installed without dependencies, on top of the environment that runs."""


_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:], stderr=subprocess.STDOUT).returncode
with open(sys.argv[1], "w") as file:
    print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
"""
"""Stands between: a process inherits the peak of the one that started it, so a small one must start it."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A process that ended: wall seconds, its largest resident memory in MiB, and its exit code."""

    seconds: float
    peak_mb: float
    code: int
    said: str


def peer_environment(name: str) -> dict[str, str]:
    """What a process must have in its environment to import the peer; empty for what is no peer.

    Raises:
        Skipped: it cannot be installed.
    """
    if name not in PACKAGES:
        return {}
    folder = PLACE / name
    if not (folder / name).is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--ignore-requires-python"]
        done = subprocess.run(
            [*command, "--target", str(folder), *PACKAGES[name]], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Skipped(f"{name} cannot be installed: {done.stderr.strip()[-200:]}")
    return {"PYTHONPATH": str(folder)}


def measured(command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> Finished:
    """Run `command` to its end."""
    with tempfile.TemporaryDirectory() as place:
        note = Path(place) / "usage"
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-S", "-c", _LAUNCHER, str(note), *command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - started
        code, peak = (int(word) for word in note.read_text(encoding="ascii").split())
    scale = 1 if sys.platform == "darwin" else 1024
    return Finished(seconds=seconds, peak_mb=peak * scale / 2**20, code=code, said=done.stdout.strip()[-400:])
