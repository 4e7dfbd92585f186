"""Writing ``report.json`` and ``index.html``: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgekit.digest import canonical_json
from edgekit.package import Manifest
from edgekit_converters.report.choice import choice
from edgekit_converters.report.coverage import compiled, coverage, together
from edgekit_converters.report.doubts import warned
from edgekit_converters.report.panels import panels, worst_layers
from edgekit_converters.report.plot import kinds_of, scatter
from edgekit_converters.report.rows import decisive, duration, latency, model_bytes, points, row, size
from edgekit_converters.report.words import counted, sentences
from edgekit_converters.values import OTHER_KERNELS


def write_report(
    folder: Path, manifest: Manifest, measurements: Mapping[str, Any], facts: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write both forms into `folder`; gives the JSON form."""
    folder.mkdir()
    notes = [*facts["notes"], *(warned(code) for code in facts["warnings"])]
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


def slower_than_float(manifest: Manifest, measurements: Mapping[str, Any]) -> list[str]:
    """Warnings where a variant is slower here than the same target's fp32."""
    floats = {
        (item.profile, item.target): latency(measurements, item)
        for item in manifest.variants
        if item.precision == "fp32"
    }
    found = []
    for item in manifest.variants:
        base, own = floats.get((item.profile, item.target)), latency(measurements, item)
        if item.target in OTHER_KERNELS:
            continue
        if item.precision != "fp32" and base and own and own > 1.1 * base:
            found.append(f"{item.id} is slower than fp32 on this machine: {own:.0f} µs against {base:.0f} µs")
    return found


def _page(manifest: Manifest, report: Mapping[str, Any]) -> str:
    import jinja2

    folder = files("edgekit_converters.report")
    template, style = ((folder / name).read_text(encoding="utf-8") for name in ("page.html.j2", "page.css"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["size"] = size
    measured = [item for v in manifest.variants if (item := latency(report["measurements"], v)) is not None]
    sizes, times, quality = points(manifest.variants, report)
    figures = report["measurements"]["variants"]
    plots = (scatter(sizes, quality, "size in kB"), scatter(times, quality, "latency here in ms"))
    return environment.from_string(template).render(
        **report,
        style=_safe(style),
        rows=[row(item, report) for item in manifest.variants],
        counts=counted(manifest.variants),
        said=sentences(manifest.variants),
        smallest=size(min((model_bytes(figures.get(v.id, {}), v) for v in manifest.variants), default=0)),
        fastest=duration(min(measured)) if measured else "–",
        plots=[_safe(item) for item in plots if item],
        kinds=kinds_of(sizes),
        hardware=_hardware(manifest, report),
        evidence=_evidence(manifest, report),
        choice=_chosen(report.get("search")),
        contract=json.dumps(manifest.contract, indent=2, ensure_ascii=False),
    )


def _chosen(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    found = choice(facts)
    return None if found is None else {**found, "plots": [_safe(item) for item in found["plots"]]}


def _safe(text: str) -> Any:
    """Our own SVG and style, in which every text of others is escaped already."""
    import markupsafe

    return markupsafe.Markup(text)


def _evidence(manifest: Manifest, report: Mapping[str, Any]) -> dict[str, Any]:
    """Panels and the worst layers by variant; those that share an artifact and a runtime are shown once."""
    found: dict[str, Any] = {}
    seen = set()
    for item in manifest.variants:
        extra = report["variants"][item.id]
        key = ("".join(file.sha256 for file in item.files), item.verification.runtime)
        if not extra["evidence"] or key in seen:
            continue
        seen.add(key)
        found[item.id] = {
            "panels": {
                title: _safe(text) for title, text in panels(extra["evidence"], extra["facts"]).items()
            },
            "worst": worst_layers(extra["facts"]),
        }
    return found


def _hardware(manifest: Manifest, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By profile: its accelerators, what of each variant runs where, and what was refused there."""
    found = []
    facts = report.get("boards", {})
    for name in dict.fromkeys([v.profile for v in manifest.variants] + list(facts)):
        ways = [(v, report["variants"][v.id]["facts"]) for v in manifest.variants if v.profile == name]
        each = (look(v, made) for v, made in ways for look in (coverage, compiled))
        covered = [item for item in each if item is not None]
        refused = [r for r in manifest.refused if r.id.startswith(f"{name}-") and _of(r.id, facts) == name]
        if covered or refused:
            board = facts.get(name, {"title": name, "accelerators": [], "limits": []})
            found.append({"name": name, "covered": together(covered), "refused": refused, **board})
    return found


def _of(refused: str, names: Mapping[str, Any]) -> str:
    """The profile of a refused variant's id: the longest name that it begins with."""
    return max((name for name in names if refused.startswith(f"{name}-")), key=len, default="")


__all__ = ["decisive", "slower_than_float", "write_report"]
