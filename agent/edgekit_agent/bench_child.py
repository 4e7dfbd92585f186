"""The process that measures: loads one variant beside everything else, runs it, prints its figures.

``python -m edgekit_agent.bench_child``, a JSON request on standard input, a JSON answer on standard output.
It gives way to everything: lowest priority, first in line when memory runs out, bounded in memory and
processor time; and it ends with the process that started it, whose end of standard input it watches.
Only files that were verified before are named in a request (`edgekit_agent.bench_run`).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from edgekit.package import Variant
    from edgekit.ports import Session

_NICE = 19
_WARM = 3
_SPARE_SECONDS = 30
_THERMAL = Path("/sys/class/thermal")
_CPUS = Path("/sys/devices/system/cpu")
_FIRMWARE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


def main() -> int:
    """Answer one request; 0 whenever there is an answer, refusals included."""
    request = json.loads(sys.stdin.buffer.readline())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # runtimes print what they like
    give_way(int(request["memory_mb"]), int(request["seconds"]) * int(request["threads"]) + _SPARE_SECONDS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: Mapping[str, Any] = {"ok": True, **measured(request)}
    except EdgekitError as error:
        answer = {"ok": False, **error.as_dict()}
    except MemoryError:
        answer = {"ok": False, "code": "low_memory", "message": "it needs more memory than a measurement may"}
    json.dump(answer, answers)
    answers.flush()
    return 0


def give_way(memory_mb: int, cpu_seconds: int) -> None:
    """Make this process the least important one, within bounds. What a system cannot do is left out."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    for what, limit in ((resource.RLIMIT_DATA, memory_mb << 20), (resource.RLIMIT_CPU, cpu_seconds)):
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(what)[1]
            top = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(what, (top, hard))


def _end_with_parent() -> None:
    """Standard input stays open as long as the one who asked lives."""
    sys.stdin.buffer.read()
    os._exit(1)


def measured(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load, warm up, run one sample at a time until `runs` or `seconds` are over.

    Raises:
        EdgekitError: the runtime is not here, refuses the file or fails.
    """
    from edgekit.files import read_bytes
    from edgekit.package import parse_manifest
    from edgekit_agent.detect import make_runtime

    folder = Path(request["folder"])
    manifest = parse_manifest(read_bytes(folder / "package.json"))
    variant = manifest.variant(request["variant"])
    runtime = make_runtime(request["runtime"])
    base = _peak_mb()
    session = runtime.load(folder, variant, threads=int(request["threads"]))
    samples, origin = _samples(folder, variant, session)
    for index in range(_WARM):
        session.run(samples[index % len(samples)])
    before = Machine()
    times = _times(session, samples, int(request["runs"]), float(request["seconds"]))
    ordered = sorted(times)
    figures = {
        "median_us": round(statistics.median(ordered), 1),
        "p90_us": round(ordered[int(0.9 * (len(ordered) - 1))], 1),
        "p99_us": round(ordered[int(0.99 * (len(ordered) - 1))], 1),
        "n": len(times),
        "threads": int(request["threads"]),
        "memory_mb": round(_peak_mb(), 1),
        "base_mb": round(base, 1),
        "runtime": runtime.name,
        "runtime_version": runtime.version() or "",
        "backend": session.backend,
        "inputs": origin,
        **before.since(),
    }
    return {"figures": {name: value for name, value in figures.items() if value is not None}}


def _times(session: Session, samples: list[Mapping[str, Any]], runs: int, seconds: float) -> list[float]:
    """Microseconds of each run; at least one."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or (len(times) < runs and time.perf_counter() < end):
        sample = samples[len(times) % len(samples)]
        start = time.perf_counter()
        session.run(sample)
        times.append(1e6 * (time.perf_counter() - start))
    return times


def _samples(folder: Path, variant: Variant, session: Session) -> tuple[list[Mapping[str, Any]], str]:
    """Single samples: the package probes' inputs, else zeros."""
    import numpy as np

    from edgekit_agent.npz import read_npz

    if variant.probe is not None:
        arrays = read_npz(folder / variant.probe.file.path)
        inputs = {name.removeprefix("in:"): item for name, item in arrays.items() if name.startswith("in:")}
        found = [{name: item[i : i + 1] for name, item in inputs.items()} for i in range(variant.probe.n)]
        return list(found), "probes"
    zeros = {
        item.name: np.zeros([1 if size == -1 else size for size in item.shape], item.dtype)
        for item in session.inputs
    }
    return [zeros], "zeros"


class Machine:
    """What the machine does beside the measurement, from here on."""

    def __init__(self) -> None:
        self.load = _load()
        self.temperature = _temperature()
        self._slowed = _slowed()
        self._cpu, self._own, self._at = _busy_seconds(), time.process_time(), time.monotonic()

    def since(self) -> dict[str, Any]:
        """Members of the figures; None where the system does not tell."""
        slowed = _slowed()
        throttled = None if slowed is None or self._slowed is None else slowed > self._slowed
        firmware = _firmware_throttled()
        return {
            "load": self.load,
            "load_after": _load(),
            "busy": self._busy(),
            "temperature_before_c": self.temperature,
            "temperature_c": _temperature(),
            "throttled": firmware if firmware is not None else throttled,
        }

    def _busy(self) -> float | None:
        """Share of all cores that others used meanwhile."""
        now, length = _busy_seconds(), time.monotonic() - self._at
        if now is None or self._cpu is None or length <= 0:
            return None
        others = now - self._cpu - (time.process_time() - self._own)
        return round(min(1.0, max(0.0, others / (length * (os.cpu_count() or 1)))), 3)


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _busy_seconds() -> float | None:
    """Processor seconds the whole machine has spent on anything but idling."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with Path("/proc/stat").open(encoding="ascii") as stream:
            numbers = [int(word) for word in stream.readline().split()[1:9]]
        return (sum(numbers) - numbers[3] - numbers[4]) / float(os.sysconf("SC_CLK_TCK"))
    return None


def _temperature() -> float | None:
    readings = []
    for zone in _THERMAL.glob("thermal_zone*/temp"):
        with contextlib.suppress(OSError, ValueError):
            readings.append(int(zone.read_text(encoding="ascii")) / 1000)
    return max(readings, default=None)


def _slowed() -> int | None:
    """How often the cores have been throttled for their heat (x86); None where nobody counts."""
    counts = []
    for path in _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
        with contextlib.suppress(OSError, ValueError):
            counts.append(int(path.read_text(encoding="ascii")))
    return sum(counts) if counts else None


def _firmware_throttled() -> bool | None:
    """Whether a Raspberry Pi's firmware holds the processor back now: low voltage, capped, too hot."""
    with contextlib.suppress(OSError, ValueError):
        return bool(int(_FIRMWARE.read_text(encoding="ascii").strip(), 16) & 0xF)
    return None


def _peak_mb() -> float:
    """This program's own peak in MiB."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
