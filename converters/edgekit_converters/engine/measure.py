"""Latency and memory of one artifact in a process of its own: host figures, never a verdict.

``python -m edgekit_converters.engine.measure TARGET RUNTIME FOLDER ARTIFACT.json DATA.npz`` prints JSON:
single-sample latency in microseconds over the data's first samples, one thread, and resident memory in
MiB before the model is loaded and at its peak. A session that runs in another program times itself (`timed`).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_BUDGET_S = 0.4
_RUNS = 400
_SAMPLES = 64


def measure(
    target: str, runtime: str, folder: Path, artifact: Path, data: Path, *, seconds: float
) -> Mapping[str, Any] | None:
    """Run this module in a process of its own; None when it failed or took longer than `seconds`."""
    module = "edgekit_converters.engine.measure"
    command = [sys.executable, "-m", module, target, runtime, folder, artifact, data]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, timeout=seconds, check=True, env=environment
        )
        found: Mapping[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None
    return found


def main() -> None:
    """Measure and print."""
    from edgekit_converters.npz import load_arrays
    from edgekit_converters.targets import load_target
    from edgekit_converters.values import Built

    name, runtime, folder, artifact, data = sys.argv[1:6]
    target, built = load_target(name, runtime), Built.from_dict(json.loads(Path(artifact).read_text()))
    inputs = {key: array[:_SAMPLES] for key, array in load_arrays(Path(data)).items()}
    n = len(next(iter(inputs.values())))
    samples = [{key: array[i : i + 1] for key, array in inputs.items()} for i in range(n)]
    _import_runtime(target.runtime)
    before = _peak_mb()
    session: Any = target.open(Path(folder), built, kernels=target.kernel_sets[0], threads=1)
    if hasattr(session, "timed"):  # it runs elsewhere, by a clock that stands nearer; memory is not ours
        print(json.dumps({"latency_us": _figures(session.timed(samples[0]))}))
        return
    if not hasattr(session, "step"):
        sys.exit("nothing runs it here")
    times = _timed(session.step, samples)
    memory = {"before": round(before, 1), "peak": round(_peak_mb(), 1)}
    print(json.dumps({"latency_us": _figures(times), "memory_mb": memory}))


def _timed(step: Callable[[Any], Any], samples: list[dict[str, Any]]) -> list[float]:
    """Microseconds of single inferences."""
    for sample in samples[:10]:
        step(sample)
    times: list[float] = []
    end = time.perf_counter() + _BUDGET_S
    while len(times) < _RUNS and (time.perf_counter() < end or len(times) < 5):
        start = time.perf_counter()
        step(samples[len(times) % len(samples)])
        times.append(1e6 * (time.perf_counter() - start))
    return times


def _figures(times: list[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(times), 1),
        "p90": round(sorted(times)[int(0.9 * (len(times) - 1))], 1),
        "n": len(times),
        "threads": 1,
    }


def _import_runtime(runtime: str) -> None:
    if runtime == "litert":
        import ai_edge_litert.interpreter  # noqa: F401  # only so that its own memory does not count
    elif runtime == "onnxruntime":
        import onnxruntime  # noqa: F401  # likewise


def _peak_mb() -> float:
    """This program's own peak. The resource usage has that of the process it was forked from, too."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


if __name__ == "__main__":
    main()
