"""The host's C compiler: found by name, called with every warning an error."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekit_converters.errors import Refusal

VARIABLE = "EDGEKIT_CC"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
_NAMES = ("cc", "gcc", "clang")
_SECONDS = 300


def compiler() -> str | None:
    """The compiler's path: what ``EDGEKIT_CC`` names, else cc, gcc or clang; None when there is none.

    An empty ``EDGEKIT_CC`` means none.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return shutil.which(named) if named else None
    return next((found for found in map(shutil.which, _NAMES) if found), None)


def compiler_version() -> str:
    """The first line that the compiler says about itself, empty without one."""
    path = compiler()
    if path is None:
        return ""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout.splitlines() or [""])[0].strip()


def compile_c(folder: Path, out: Path, options: Sequence[str], *, skip: Sequence[str] = ()) -> Path:
    """Compile all C files of `folder` but those in `skip` into `out`.

    Raises:
        Refusal: there is no compiler, or it refuses the code.
    """
    path = compiler()
    if path is None:
        raise Refusal("no C compiler is installed", remedy="install gcc", code="tool_not_installed")
    files = sorted(str(item) for item in folder.glob("*.c") if item.name not in skip)
    command = [path, *STRICT, *options, "-o", str(out), *files]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Refusal(f"the compiler took more than {_SECONDS} s", code="tool_failed") from error
    if done.returncode != 0:
        raise Refusal(f"the compiler refuses the code: {done.stderr[:800]}", code="tool_failed")
    return out
