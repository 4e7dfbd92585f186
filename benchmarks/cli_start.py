"""How long `edgekit --help` takes: a fresh process each time, warm page cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Run, timed


def main(run: Run) -> None:
    """Measure the start of the command line and of Python itself beside it."""
    program = Path(sys.executable).parent / "edgekit"
    n = run.repeats(30, 5)

    def start(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    start(program, "--help")
    run.add("cli-help", "`edgekit --help`", "s", timed(lambda: start(program, "--help"), n))
    run.add(
        "python-start",
        "Python alone (`python -c pass`)",
        "s",
        timed(lambda: start(sys.executable, "-c", "pass"), n),
    )
