"""Compiling the generated program against TFLM's own sources, where ``TFLM_ROOT`` names them.

TFLM's sources are in no package registry: without them the program is *prepared*. With them each file is
compiled (not linked: that takes a board's own build) by ``$CXX``, and what the compiler says is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from edgekit_converters.targets.tflm.names import ROOT

_SECONDS = 300
_DOWNLOADS = ("flatbuffers/include", "gemmlowp", "ruy")


def tried(folder: Path) -> dict[str, Any]:
    """Compile ``*.cc`` in `folder`; ``status`` is ``compiled``, ``failed`` or ``prepared``."""
    root = os.environ.get(ROOT)
    if not root:
        return {"status": "prepared", "why": f"{ROOT} is not set: the program was not compiled"}
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler or not (Path(root) / "tensorflow" / "lite" / "micro").is_dir():
        what = "no C++ compiler was found" if not compiler else f"{root} does not hold tensorflow/lite/micro"
        return {"status": "failed", "why": what}
    for path in sorted(folder.glob("*.cc")):
        problem = _compile(compiler, Path(root), path)
        if problem:
            return {"status": "failed", "why": f"{path.name}: {problem}"}
    return {"status": "compiled", "why": "compiled against the sources in TFLM_ROOT; not linked, not run"}


def _compile(compiler: str, root: Path, path: Path) -> str:
    """What went wrong, empty for success."""
    downloads = root / "tensorflow" / "lite" / "micro" / "tools" / "make" / "downloads"
    places = [root, *(downloads / name for name in _DOWNLOADS)]
    flags = ["-std=c++17", "-DTF_LITE_STATIC_MEMORY", "-fno-exceptions", *(f"-I{place}" for place in places)]
    command = [compiler, *flags, "-c", str(path), "-o", os.devnull]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"[:300]
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return f"exit code {done.returncode}: {' '.join(errors[:2])[:400]}"
