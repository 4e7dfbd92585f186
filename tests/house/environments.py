"""Fresh virtual environments for the tests of what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def interpreter(python: str) -> Path:
    """A Python of that version: the running one, one on the PATH, or one pyenv keeps; else a skip."""
    if python == RUNNING:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [*sorted(pyenv.glob(f"{python}.*/bin/python")), shutil.which(f"python{python}")]
    for candidate in candidates:
        if (
            candidate
            and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            return Path(candidate)
    pytest.skip(f"no Python {python} on this machine")


def fresh_environment(folder: Path, python: str) -> Path:
    """The python of a new, empty virtual environment."""
    subprocess.run([interpreter(python), "-m", "venv", folder], check=True, capture_output=True)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip quietly; a failure shows what it said."""
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
