"""Writing ``report.json`` and ``index.html``: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgekit.digest import canonical_json
from edgekit.package import Manifest, Variant
from edgekit_converters.report.panels import panels
from edgekit_converters.report.plot import Point, scatter


def write_report(
    folder: Path, manifest: Manifest, measurements: Mapping[str, Any], facts: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write both forms into `folder`; gives the JSON form."""
    folder.mkdir()
    notes = [*facts["notes"], *(f"calibration data: {_words(code)}" for code in facts["warnings"])]
    report = {
        "package": manifest.digest,
        "ref": manifest.ref,
        "manifest": manifest.to_dict(),
        "measurements": measurements,
        **facts,
        "notes": [*notes, *slower_than_float(manifest, measurements)],
    }
    (folder / "report.json").write_bytes(canonical_json(report))
    (folder / "index.html").write_text(_page(manifest, report), encoding="utf-8")
    return report


def _words(code: str) -> str:
    return code.replace("_", " ")


def slower_than_float(manifest: Manifest, measurements: Mapping[str, Any]) -> list[str]:
    """Warnings where a variant is slower here than the same target's fp32."""
    floats = {
        (item.profile, item.target): _latency(measurements, item)
        for item in manifest.variants
        if item.precision == "fp32"
    }
    found = []
    for item in manifest.variants:
        base, own = floats.get((item.profile, item.target)), _latency(measurements, item)
        if item.precision != "fp32" and base and own and own > 1.1 * base:
            found.append(f"{item.id} is slower than fp32 on this machine: {own:.0f} µs against {base:.0f} µs")
    return found


def _latency(measurements: Mapping[str, Any], variant: Variant) -> float | None:
    found = measurements["variants"].get(variant.id, {}).get("latency_us")
    return None if found is None else float(found["median"])


def _page(manifest: Manifest, report: Mapping[str, Any]) -> str:
    import jinja2

    measurements = report["measurements"]
    latencies = [item for v in manifest.variants if (item := _latency(measurements, v)) is not None]
    template = (files("edgekit_converters.report") / "page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    plot, quality = _points(manifest, measurements)
    return environment.from_string(template).render(
        **report,
        kb=_kb,
        rows=[_row(item, report) for item in manifest.variants],
        passed=sum(
            v.verification.method != "prepared" and v.verification.verdict == "pass"
            for v in manifest.variants
        ),
        smallest=_kb(min((v.size for v in manifest.variants), default=0)),
        fastest=f"{min(latencies):.0f} µs" if latencies else "–",
        plot=_safe(scatter(plot, quality)),
        evidence={
            item.id: {
                title: _safe(panel) for title, panel in panels(extra["evidence"], extra["facts"]).items()
            }
            for item in manifest.variants
            if (extra := report["variants"][item.id])["evidence"]
        },
        contract=json.dumps(manifest.contract, indent=2, ensure_ascii=False),
    )


def _safe(svg: str) -> Any:
    """Our own SVG, in which every text is escaped already."""
    import markupsafe

    return markupsafe.Markup(svg)


def _points(manifest: Manifest, measurements: Mapping[str, Any]) -> tuple[list[Point], str]:
    """One point an artifact (profiles that share one give one point): top-1, else signal to noise."""
    shown = next((found for v in manifest.variants if (found := decisive(v))), None)
    points: dict[str, Point] = {}
    for variant in manifest.variants:
        metrics = variant.verification.metrics
        if variant.verification.method == "prepared" or (shown and shown[0] not in metrics):
            continue
        errors = [item["snr_db"] for item in metrics["outputs"].values()]
        quality = metrics[shown[0]]["variant"] if shown else min(item or 0.0 for item in errors)
        shas = "".join(item.sha256 for item in variant.files)
        points.setdefault(
            shas,
            Point(
                label=f"{variant.target} {variant.precision}",
                precision=variant.precision,
                size=variant.size / 1000,
                quality=quality,
                latency=_latency(measurements, variant),
            ),
        )
    return list(points.values()), shown[0] if shown else "signal to noise in dB"


def decisive(variant: Variant) -> tuple[str, Mapping[str, Any]] | None:
    """Name and figures of the first metric that the verdict hangs on; None without labels."""
    found = variant.verification.metrics.items()
    return next(
        ((name, item) for name, item in found if isinstance(item, Mapping) and item.get("decides")), None
    )


def _row(variant: Variant, report: Mapping[str, Any]) -> dict[str, str]:
    check, extra = variant.verification, report["variants"][variant.id]
    facts = extra["facts"]
    figures = report["measurements"]["variants"].get(variant.id, {})
    judged = decisive(variant)
    worst = [item["max_relative"] for item in check.metrics.get("outputs", {}).values()]
    how = check.method
    if check.runtime:
        where = "on its target" if check.on_target else f"on {check.machine}"
        how = f"{check.method} by {check.runtime} {check.runtime_version} ({check.backend}) {where}"
    slices = max(extra["slices"].items(), key=lambda item: item[1], default=None)
    return {
        "id": variant.id,
        "verdict": check.verdict,
        "how": how,
        "why": extra["why"],
        "accuracy": f"{judged[0]} {judged[1]['variant']:.4f}" if judged else "–",
        "error": f"{max(item or 0 for item in worst):.2g}" if worst else "–",
        "size": _kb(variant.size),
        "latency": f"{figures['latency_us']['median']:.0f} µs" if "latency_us" in figures else "–",
        "memory": f"{figures['memory_mb']['peak']:.0f} MiB" if "memory_mb" in figures else "–",
        "route": variant.route,
        "ops": str(facts.get("op_count", "–")),
        "integer": f"{100 * facts.get('int8_op_ratio', 0):.0f} %",
        "weights": str(facts.get("int8_weights", "–")),
        "kernels": ", ".join(extra["kernel_sets"]) or "–",
        "slice": f"{slices[0]}: {100 * slices[1]:+.2f} points lost" if slices else "–",
    }


def _kb(size: float) -> str:
    return f"{size / 1000:.1f} kB" if size < 1e6 else f"{size / 1e6:.2f} MB"
