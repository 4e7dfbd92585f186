"""From stored telemetry to what gates are given: windows merged per device and variant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgekit.documents import Window
from edgekit.sketches import Bins, LatencyHistogram
from edgekit_fleet.rollout.gates.base import Aggregate

_MODEL = "model:"


def merge_windows(windows: Iterable[Window]) -> Aggregate:
    """Merge one device's windows of one variant; order does not matter.

    Bins of one tensor merge only with bins of the same number: those of the newest window win.
    """
    latency: dict[str, LatencyHistogram] = {}
    bins: dict[str, dict[str, Bins]] = {"predictions": {}, "confidence": {}, "inputs": {}}
    total = requests = model = client = 0
    for window in sorted(windows, key=lambda w: (w.boot_id, w.seq), reverse=True):
        total += 1
        requests += window.requests
        model += sum(n for kind, n in window.errors.items() if kind.startswith(_MODEL))
        client += sum(n for kind, n in window.errors.items() if not kind.startswith(_MODEL))
        for stage, histogram in window.latency.items():
            latency[stage] = latency[stage].merge(histogram) if stage in latency else histogram
        for kind, merged in bins.items():
            _merge_bins(merged, getattr(window, kind))
    return Aggregate(
        windows=total,
        requests=requests,
        model_errors=model,
        client_errors=client,
        latency=latency,
        **{kind: {name: item.counts for name, item in merged.items()} for kind, merged in bins.items()},
    )


def _merge_bins(merged: dict[str, Bins], more: Mapping[str, Bins]) -> None:
    for name, item in more.items():
        if name not in merged:
            merged[name] = item
        elif len(item.counts) == len(merged[name].counts):
            merged[name] = merged[name].merge(item)
