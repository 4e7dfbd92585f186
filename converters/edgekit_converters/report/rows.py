"""The tables' rows: one variant's verdict, figures and making, as shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgekit.package import Variant
from edgekit_converters.report.plot import Point


def decisive(variant: Variant) -> tuple[str, Mapping[str, Any]] | None:
    """Name and figures of the first metric that the verdict hangs on; None without labels."""
    found = variant.verification.metrics.items()
    return next(
        ((name, item) for name, item in found if isinstance(item, Mapping) and item.get("decides")), None
    )


def latency(measurements: Mapping[str, Any], variant: Variant) -> float | None:
    """Median microseconds of one sample on this machine; None where nothing was measured."""
    found = measurements["variants"].get(variant.id, {}).get("latency_us")
    return None if found is None else float(found["median"])


def model_bytes(figures: Mapping[str, Any], variant: Variant) -> int:
    """Bytes of the model: all the variant's files, unless sources lie beside it."""
    return int(figures.get("size_bytes", variant.size))


def memory(figures: Mapping[str, Any]) -> str:
    """Working memory: the arena on a microcontroller, else the peak of the process here."""
    if "arena_bytes" in figures:
        return f"{figures['arena_bytes'] / 1024:.1f} KiB arena"
    return f"{figures['memory_mb']['peak']:.0f} MiB" if "memory_mb" in figures else "–"


def row(variant: Variant, report: Mapping[str, Any]) -> dict[str, str]:
    """What the tables show of one variant."""
    check, extra = variant.verification, report["variants"][variant.id]
    facts = extra["facts"]
    figures = report["measurements"]["variants"].get(variant.id, {})
    judged = decisive(variant)
    worst = [item["max_relative"] for item in check.metrics.get("outputs", {}).values()]
    slices = max(extra["slices"].items(), key=lambda item: item[1], default=None)
    shown = latency(report["measurements"], variant)
    return {
        "id": variant.id,
        "verdict": check.verdict,
        "method": check.method,
        "how": _how(variant),
        "why": extra["why"],
        "accuracy": f"{judged[0]} {judged[1]['variant']:.4f}" if judged else "–",
        "error": f"{max(item or 0 for item in worst):.2g}" if worst else "–",
        "size": size(model_bytes(figures, variant)),
        "latency": "–" if shown is None else duration(shown),
        "memory": memory(figures),
        "route": variant.route,
        "ops": str(facts.get("op_count", "–")),
        "integer": f"{100 * facts['int8_op_ratio']:.0f} %" if "int8_op_ratio" in facts else "–",
        "weights": str(facts.get("int8_weights", "–")),
        "kernels": ", ".join(extra["kernel_sets"]) or "–",
        "slice": f"{slices[0]}: {100 * slices[1]:+.2f} points lost" if slices else "–",
    }


def _how(variant: Variant) -> str:
    check = variant.verification
    if not check.runtime:
        return "nothing ran it"
    where = "its own device" if check.on_target else f"{check.machine}, not its device"
    return f"by {check.runtime} {check.runtime_version} ({check.backend}) on {where}"


def points(variants: tuple[Variant, ...], report: Mapping[str, Any]) -> tuple[list[Point], list[Point], str]:
    """Dots over size and over latency, and what quality is: the decisive figure, else signal to noise.

    Profiles that share an artifact and its runtime give one dot; what nothing ran has none.
    """
    shown = next((found for v in variants if (found := decisive(v))), None)
    sizes: dict[tuple[str, str | None], Point] = {}
    times: dict[tuple[str, str | None], Point] = {}
    for variant in variants:
        value = _quality(variant, shown[0] if shown else None)
        if value is None:
            continue
        key = ("".join(item.sha256 for item in variant.files), variant.verification.runtime)
        spent = latency(report["measurements"], variant)
        bytes_ = model_bytes(report["measurements"]["variants"].get(variant.id, {}), variant)
        label = f"{variant.requires.runtime} {variant.precision}"
        note = ", ".join(
            [f"{value:.4g}", size(bytes_), "latency not measured" if spent is None else duration(spent)]
        )
        point = Point(
            label=label,
            precision=variant.precision,
            x=bytes_ / 1000,
            quality=value,
            ran=variant.verification.method,
            note=note,
        )
        sizes.setdefault(key, point)
        if spent is not None:
            times.setdefault(key, replace(point, x=spent / 1000))
    return list(sizes.values()), list(times.values()), shown[0] if shown else "signal to noise in dB"


def _quality(variant: Variant, figure: str | None) -> float | None:
    metrics = variant.verification.metrics
    if variant.verification.method == "prepared" or "outputs" not in metrics:
        return None
    if figure is not None:
        return float(metrics[figure]["variant"]) if figure in metrics else None
    return min(float(item["snr_db"] or 0.0) for item in metrics["outputs"].values())


def size(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / 1000:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"


def duration(microseconds: float) -> str:
    """Microseconds as people read them."""
    return f"{microseconds:.0f} µs" if microseconds < 10_000 else f"{microseconds / 1000:.1f} ms"
