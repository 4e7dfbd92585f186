"""TI's compiler where it is installed: found, run in a process of its own, held to what it must leave.

It needs a Python of its own (TI's runtime is built for 3.10), so nothing of it is imported here:
``TIDL_TOOLS_PATH`` names the folder of the tools, ``EDGEKIT_TIDL_PYTHON`` an interpreter that has TI's
onnxruntime. Success is the set of files, not an exit status: the tools are known to end with 0 all the same.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.targets.tidl.session import EMULATION

FOLDER, PYTHON = "TIDL_TOOLS_PATH", "EDGEKIT_TIDL_PYTHON"
SCRIPT = "compile/compile.py"
ARTIFACTS = "artifacts"
HOST_OUTPUTS = "compile/host_outputs.npz"
MUST_HAVE = ("allowedNode.txt", "onnxrtMetaData.txt")
_SECONDS = 3600
_LAST = 600
_NET = re.compile(r"(?P<name>.+)_tidl_net\.bin")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """TI's tools and the interpreter that has their runtime."""

    folder: Path
    python: Path


def find(environment: Mapping[str, str] | None = None) -> Tools | None:
    """The tools that the environment names, None when either is not named.

    Raises:
        Refusal: one is named and is not there.
    """
    given = os.environ if environment is None else environment
    folder, python = given.get(FOLDER, ""), given.get(PYTHON, "")
    if not folder or not python:
        return None
    for name, path, good in (
        (FOLDER, folder, Path(folder).is_dir()),
        (PYTHON, python, os.access(python, os.X_OK)),
    ):
        if not good:
            raise Refusal(
                f"{name} names {path!r}, which is not there",
                remedy=f"correct {name}, or unset it to get the bundle uncompiled",
                code="tool_not_found",
            )
    return Tools(folder=Path(folder), python=Path(python))


def compile_bundle(found: Tools, folder: Path, *, most: int, seconds: float = _SECONDS) -> Mapping[str, Any]:
    """Run the bundle's own script with TI's interpreter; gives what was made.

    Raises:
        Refusal: it crashed, took too long, complained, or left no full set of artifacts.
    """
    environment = {**os.environ, FOLDER: str(found.folder)}
    command = [str(found.python), str(folder / SCRIPT)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env=environment, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(f"took more than {seconds:.0f} s") from error
    except OSError as error:
        raise _failed(f"cannot be started: {error}") from error
    console = f"{done.stdout}\n{done.stderr}".strip()
    if done.returncode != 0:
        how = (
            f"ended by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        )
        raise _failed(f"{how}: {console[-_LAST:]}")
    return checked(folder / ARTIFACTS, console, most=most)


def checked(artifacts: Path, console: str, *, most: int) -> Mapping[str, Any]:
    """The artifact set: a net and its io file a subgraph, and the two lists that the runtime reads.

    Raises:
        Refusal: it is not whole, or the console names an error.
    """
    names = {path.name for path in artifacts.glob("*") if path.is_file()} if artifacts.is_dir() else set()
    nets = sorted(match["name"] for name in names if (match := _NET.fullmatch(name)))
    missing = [name for name in MUST_HAVE if name not in names]
    missing += [f"{name}_tidl_io_1.bin" for name in nets if f"{name}_tidl_io_1.bin" not in names]
    if not nets:
        missing.insert(0, "subgraph_0_tidl_net.bin")
    empty = sorted(name for name in names if (artifacts / name).stat().st_size == 0)
    complaint = next((line for line in console.splitlines() if "error" in line.lower()), None)
    if missing or empty or complaint is not None:
        what = [f"no {name}" for name in missing] + [f"{name} is empty" for name in empty]
        raise _failed("; ".join([*what, *([complaint[:200]] if complaint else [])]))
    more = [] if len(nets) <= most else [f"{len(nets)} subgraphs, {most} were expected"]
    return {"subgraphs": nets, "files": sorted(names), "doubts": more}


def host_difference(folder: Path) -> float | None:
    """How far TI's own PC emulation of the frames is from ours, as a share of the output's range."""
    path = folder / HOST_OUTPUTS
    if not path.is_file():
        return None
    theirs = load_arrays(path)
    frames = load_arrays(folder / "calibration" / "frames.npz")
    ours = OnnxSession(folder / EMULATION, optimized=False).run(frames)
    worst = 0.0
    for name, value in ours.items():
        if name not in theirs or theirs[name].shape != value.shape:
            raise _failed(f"its own emulation gives no {name!r} of shape {value.shape}")
        exact = value.astype(np.float64)
        gap = np.abs(theirs[name].astype(np.float64) - exact).max(initial=0.0)
        worst = max(worst, float(gap / max(float(np.ptp(exact)), 1e-6)))
    return float(f"{worst:.3g}")


def _failed(why: str) -> Refusal:
    return Refusal(
        f"TI's compiler: {why}",
        remedy=f"look at compile/ of the bundle; without {FOLDER} the bundle is built uncompiled",
        code="tool_failed",
    )
