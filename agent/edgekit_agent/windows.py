"""Counters of what a variant served, kept in memory and cut into telemetry windows.

One `Counters` belongs to one loaded variant, so that a swap in the middle of a period gives two
windows, each naming what it measured. Nothing here imports numpy: whoever observes tensors hands
over bin numbers. Putting windows into documents, numbering and storing them is the lifecycle's business.

Errors are counted by ``origin:kind``: ``client:`` is the caller's fault and never held against a model,
``model:`` is the model's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.package import Distribution, Reference
from edgekit.ports import Clock
from edgekit.sketches import Bins, LatencyHistogram, LatencyRecorder
from edgekit_agent.installed import Installed

CLIENT = "client"
MODEL = "model"
STAGES = ("queue", "preprocess", "infer", "postprocess", "total")
_THERMAL = Path("/sys/class/thermal")

BinKey = tuple[str, str]
"""(group, tensor name); group is ``inputs``, ``predictions`` or ``confidence``."""

Observations = Sequence[tuple[BinKey, Sequence[int]]]
"""Bin numbers seen in one request, per distribution."""


@dataclass(frozen=True, kw_only=True)
class WindowCounters:
    """What one variant did in one slot during `seconds` (see `edgekit.documents.Window`).

    `requests` counts every request that reached the slot, refused and failed ones too; answered
    requests are ``requests`` minus all `errors`.
    """

    installed: Installed
    seconds: float
    requests: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, LatencyHistogram] = field(default_factory=dict)
    predictions: Mapping[str, Bins] = field(default_factory=dict)
    confidence: Mapping[str, Bins] = field(default_factory=dict)
    inputs: Mapping[str, Bins] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime: str = ""
    backend: str = ""
    trial: bool = False


@dataclass(frozen=True, kw_only=True)
class TrialHealth:
    """What a variant did since it was switched in; `latency` is the ``total`` stage, `longest` the
    seconds for which the oldest request inside has been computed."""

    requests: int
    client_errors: int
    model_errors: int
    latency: LatencyHistogram
    seconds: float
    longest: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counters since the variant was loaded, which never go back (for ``/metrics``)."""

    requests: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, LatencyHistogram] = field(default_factory=dict)

    def plus(self, window: WindowCounters) -> Totals:
        """With a window added."""
        errors = dict(self.errors)
        for kind, count in window.errors.items():
            errors[kind] = errors.get(kind, 0) + count
        latency = dict(self.latency)
        for stage, histogram in window.latency.items():
            latency[stage] = latency[stage].merge(histogram) if stage in latency else histogram
        return Totals(requests=self.requests + window.requests, errors=errors, latency=latency)


class Counters:
    """Counters of one loaded variant. Thread-safe; a request costs a few microseconds.

    Args:
        installed: what they belong to.
        reference: the package's reference bins; a tensor without them is not counted.
        classes: number of classes per output whose argmax is counted without a reference.
        clock: for the length of a window.
    """

    def __init__(
        self,
        installed: Installed,
        *,
        reference: Reference,
        classes: Mapping[str, int],
        clock: Clock,
        runtime: str = "",
        backend: str = "",
    ) -> None:
        self._installed = installed
        self._sizes = bin_sizes(reference, classes)
        self._clock = clock
        self._runtime, self._backend = runtime, backend
        self._lock = threading.Lock()
        self._began = self._since = clock.monotonic()
        self._totals = Totals()
        self.trial = False
        self._clear()

    def _clear(self) -> None:
        self._requests = 0
        self._errors: dict[str, int] = {}
        self._latency = {stage: LatencyRecorder() for stage in STAGES}
        self._bins = {key: [0] * size for key, size in self._sizes.items()}

    def answered(self, stages: Iterable[tuple[str, float]], observations: Observations) -> None:
        """Count an answered request: (stage, milliseconds) pairs and the bins it fell into."""
        with self._lock:
            self._requests += 1
            for stage, milliseconds in stages:
                self._latency[stage].record(milliseconds)
            for key, indices in observations:
                counts = self._bins[key]
                for index in indices:
                    counts[index] += 1

    def failed(self, origin: str, kind: str) -> None:
        """Count a request that got an error."""
        with self._lock:
            self._requests += 1
            name = f"{origin}:{kind}"
            self._errors[name] = self._errors.get(name, 0) + 1

    def restart(self) -> None:
        """Begin trial figures here: what came before (warm-up, probes) is not counted."""
        with self._lock:
            self._began = self._since = self._clock.monotonic()
            self._totals = Totals()
            self._clear()

    def cut(self, resources: Mapping[str, float]) -> WindowCounters:
        """End the window: everything since the last cut, with gauges as they are now."""
        with self._lock:
            window = self._window(resources)
            self._totals = self._totals.plus(window)
            self._since += window.seconds
            self._clear()
        return window

    def totals(self) -> Totals:
        """Everything since `restart`, whole windows and the current one."""
        with self._lock:
            return self._totals.plus(self._window({}))

    def health(self) -> TrialHealth:
        """The figures a trial is judged by."""
        totals = self.totals()
        by_origin = {CLIENT: 0, MODEL: 0}
        for kind, count in totals.errors.items():
            by_origin[kind.split(":")[0]] += count
        return TrialHealth(
            requests=totals.requests,
            client_errors=by_origin[CLIENT],
            model_errors=by_origin[MODEL],
            latency=totals.latency.get("total", LatencyHistogram()),
            seconds=self._clock.monotonic() - self._began,
        )

    def _window(self, resources: Mapping[str, float]) -> WindowCounters:
        histograms = {stage: recorder.snapshot() for stage, recorder in self._latency.items()}
        return WindowCounters(
            installed=self._installed,
            seconds=max(0.0, self._clock.monotonic() - self._since),
            requests=self._requests,
            errors=dict(self._errors),
            latency={stage: histogram for stage, histogram in histograms.items() if histogram.buckets},
            predictions=self._group("predictions"),
            confidence=self._group("confidence"),
            inputs=self._group("inputs"),
            resources=dict(resources),
            runtime=self._runtime,
            backend=self._backend,
            trial=self.trial,
        )

    def _group(self, group: str) -> dict[str, Bins]:
        return {name: Bins(counts=tuple(n)) for (kind, name), n in self._bins.items() if kind == group}


def bin_sizes(reference: Reference, classes: Mapping[str, int]) -> dict[BinKey, int]:
    """How many bins each counted distribution has."""
    sizes: dict[BinKey, int] = {("predictions", name): size for name, size in classes.items()}
    groups: Mapping[str, Mapping[str, Distribution]] = {
        "inputs": reference.inputs,
        "predictions": reference.outputs,
        "confidence": reference.confidence,
    }
    for group, members in groups.items():
        sizes.update({(group, name): len(item.counts) for name, item in members.items() if item.counts})
    return sizes


class ResourceMeter:
    """Gauges of this process and machine; what the system does not offer is left out."""

    def __init__(self) -> None:
        self._cpu, self._at = time.process_time(), time.monotonic()

    def read(self) -> dict[str, float]:
        """``rss_mb``, ``cpu_percent`` (of one core, since the last call), ``memory_free_mb``,
        ``temperature_c`` (the hottest zone)."""
        cpu, now = time.process_time(), time.monotonic()
        gauges: dict[str, float] = {}
        if now > self._at:
            gauges["cpu_percent"] = round(100 * (cpu - self._cpu) / (now - self._at), 2)
        self._cpu, self._at = cpu, now
        gauges.update(_from_proc("/proc/self/status", {"VmRSS": "rss_mb"}))
        gauges.update(_from_proc("/proc/meminfo", {"MemAvailable": "memory_free_mb"}))
        hottest = _temperature(_THERMAL)
        if hottest is not None:
            gauges["temperature_c"] = hottest
        return gauges


def available_memory_mb() -> float | None:
    """Memory that can be used without swapping, None where the system does not say."""
    return _from_proc("/proc/meminfo", {"MemAvailable": "free"}).get("free")


def _from_proc(path: str, wanted: Mapping[str, str]) -> dict[str, float]:
    """Members of a ``Key:   123 kB`` file in MiB under new names."""
    found: dict[str, float] = {}
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key in wanted:
            found[wanted[key]] = round(int(rest.split()[0]) / 1024, 2)
    return found


def _temperature(folder: Path) -> float | None:
    readings = []
    for zone in folder.glob("thermal_zone*/temp"):
        try:
            readings.append(int(zone.read_text(encoding="ascii")) / 1000)
        except (OSError, ValueError):
            continue
    return max(readings, default=None)


__all__ = [
    "CLIENT",
    "MODEL",
    "STAGES",
    "Counters",
    "Observations",
    "ResourceMeter",
    "Totals",
    "TrialHealth",
    "WindowCounters",
    "available_memory_mb",
    "bin_sizes",
]
