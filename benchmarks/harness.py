"""Measuring: repeat, take median and spread, write `benchmarks/results/<name>.json`.

A result file is one JSON object: `schema` (1), `benchmark`, `commit` (``…-dirty`` when the tree was
not clean), `machine` (cpu, cores, memory, system, python), `command` (what reproduces it) and
`figures`, a list of {`name`, `title`, `unit`, `n`, `median`, `spread`}; `spread` is the
interquartile range in the same unit. A ``--short`` run prints and writes nothing.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


class Skipped(Exception):
    """A benchmark cannot run here; the reason is the message."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value: median and interquartile range of `n` samples in `unit`."""

    name: str
    title: str
    unit: str
    n: int
    median: float
    spread: float


@dataclass(kw_only=True)
class Run:
    """One benchmark under way. `short` asks for the form that takes seconds."""

    benchmark: str
    short: bool
    figures: list[Figure] = field(default_factory=list)

    def repeats(self, full: int, short: int = 1) -> int:
        """How often to measure."""
        return short if self.short else full

    def add(self, name: str, title: str, unit: str, samples: Sequence[float]) -> None:
        """Keep a figure and show it."""
        middle = statistics.median(samples)
        quartiles = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else None
        spread = quartiles[2] - quartiles[0] if quartiles else 0.0
        figure = Figure(
            name=name,
            title=title,
            unit=unit,
            n=len(samples),
            median=float(f"{middle:.4g}"),
            spread=float(f"{spread:.4g}"),
        )
        self.figures.append(figure)
        print(f"  {title}: {figure.median:g} {unit} (±{figure.spread:g}, n={figure.n})", flush=True)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the result file; returns its path."""
        document = {
            "schema": 1,
            "benchmark": self.benchmark,
            "commit": commit(),
            "machine": machine(),
            "command": f'make bench ARGS="{self.benchmark}"',
            "figures": [asdict(figure) for figure in self.figures],
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.benchmark}.json"
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return path


def timed(action: Callable[[], object], n: int) -> list[float]:
    """Wall seconds of each of `n` calls."""
    samples = []
    for _ in range(n):
        started = time.perf_counter()
        action()
        samples.append(time.perf_counter() - started)
    return samples


def commit() -> str:
    """The checkout's commit, short; marked when tracked files other than results were changed."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}-dirty" if changed else name


def machine() -> dict[str, str]:
    """What was measured on, without naming it."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cpu": cpu,
        "cores": f"{os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
