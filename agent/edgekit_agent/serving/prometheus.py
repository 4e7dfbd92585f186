"""The host's counters as Prometheus text (exposition format 0.0.4), with real histograms per stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgekit.sketches import LatencyHistogram, bucket_upper
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.windows import ResourceMeter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = tuple(range(32, 193, 8))
"""Bucket numbers of the histograms' bounds, 15.6 µs to 16.4 s, a doubling apart: bounds of
`LatencyHistogram` fall on them exactly."""
_GAUGES = {
    "rss_mb": ("process_resident_memory_bytes", 1 << 20),
    "temperature_c": ("edgekit_temperature_celsius", 1),
}


def render(
    host: ModelHost, meter: ResourceMeter, *, answers: Mapping[int, int], waiting: int, version: str
) -> str:
    """All metrics. `answers` counts HTTP answers by status, `waiting` requests in the queue now."""
    lines = [
        *_head("edgekit_agent_info", "gauge", "The agent."),
        _sample("edgekit_agent_info", {"version": version}, 1),
        *_head("edgekit_http_answers_total", "counter", "HTTP answers by status."),
        *(_sample("edgekit_http_answers_total", {"code": code}, n) for code, n in sorted(answers.items())),
        *_head("edgekit_inference_pending_requests", "gauge", "Requests being computed or waiting for it."),
        _sample("edgekit_inference_pending_requests", {}, waiting),
        *_head("edgekit_slot_ready", "gauge", "1 when the slot serves a model."),
        *(
            _sample("edgekit_slot_ready", {"slot": slot}, int(item is not None))
            for slot, item in sorted(host.slots().items())
        ),
        *_models(host),
    ]
    gauges = meter.read()
    for key, (name, factor) in _GAUGES.items():
        if key in gauges:
            lines += [
                *_head(name, "gauge", f"{key} of this device."),
                _sample(name, {}, gauges[key] * factor),
            ]
    return "\n".join(lines) + "\n"


def _models(host: ModelHost) -> list[str]:
    requests = list(_head("edgekit_inference_requests_total", "counter", "Requests that reached the slot."))
    errors = list(
        _head("edgekit_inference_errors_total", "counter", "Failed requests; whose fault, and why.")
    )
    latency = list(_head("edgekit_inference_duration_seconds", "histogram", "Time per stage."))
    for slot, item, totals in host.totals():
        ran = item.installed
        labels = {
            "slot": slot,
            "model": ran.manifest.name,
            "version": ran.manifest.version,
            "variant": ran.variant.id,
            "digest": ran.variant.digest,
        }
        requests.append(_sample("edgekit_inference_requests_total", labels, totals.requests))
        for name, n in sorted(totals.errors.items()):
            origin, _, kind = name.partition(":")
            errors.append(
                _sample("edgekit_inference_errors_total", {**labels, "origin": origin, "kind": kind}, n)
            )
        for stage, histogram in totals.latency.items():
            latency += _histogram({**labels, "stage": stage}, histogram)
    return requests + errors + latency


def _histogram(labels: Mapping[str, object], histogram: LatencyHistogram) -> Iterable[str]:
    name = "edgekit_inference_duration_seconds"
    for bound in BOUNDS:
        below = sum(n for bucket, n in histogram.buckets.items() if bucket <= bound)
        yield _sample(f"{name}_bucket", {**labels, "le": f"{bucket_upper(bound) / 1e3:.9g}"}, below)
    yield _sample(f"{name}_bucket", {**labels, "le": "+Inf"}, histogram.count)
    yield _sample(f"{name}_sum", labels, round(histogram.sum_ms / 1e3, 9))
    yield _sample(f"{name}_count", labels, histogram.count)


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Mapping[str, object], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


__all__ = ["BOUNDS", "CONTENT_TYPE", "render"]
