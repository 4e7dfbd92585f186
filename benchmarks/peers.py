"""Other converters, each installed beside our own environment and run in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
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
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as stream:
        said = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    scale = 1 if sys.platform == "darwin" else 1024
    return Finished(
        seconds=time.perf_counter() - started,
        peak_mb=usage.ru_maxrss * scale / 2**20,
        code=process.returncode,
        said=said.strip()[-400:],
    )
