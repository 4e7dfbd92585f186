"""The search under a budget, if one was asked for: what was tried, the Pareto front, what was picked and why.

The facts (``search`` in the report) are made by `edgekit_converters.engine.search`; here they are only shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgekit_converters.report.plot import Point, scatter

_AXES = (("size", "size in kB", 1e-3), ("latency", "latency in ms", 1e-3))
_FROM = {"target": "on the device", "host": "on this machine"}


def choice(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of the search, plots as SVG text; None where there was none."""
    if not facts:
        return None
    tried = list(facts["candidates"])
    quality = next((str(item["decisive"]) for item in tried if item.get("decisive")), "quality")
    plots = (scatter(list(_points(tried, key, scale)), quality, title) for key, title, scale in _AXES)
    return {
        "asked": str(facts["budget"]),
        "choices": list(facts["choices"]),
        "plots": [plot for plot in plots if plot],
        "columns": ["quality", "latency", "size"],
        "rows": [_row(item) for item in tried],
    }


def _points(tried: Iterable[Mapping[str, Any]], key: str, scale: float) -> Iterable[Point]:
    """The candidates that have both figures; what was picked is marked."""
    for item in tried:
        figures = item["figures"]
        quality, cost = figures.get(item.get("decisive") or ""), figures.get(key)
        if quality is not None and cost is not None:
            yield Point(
                label=f"{item['target']} {item['precision']}{' ✔' if item['picked'] else ''}",
                precision=str(item["precision"]),
                x=float(cost["value"]) * scale,
                quality=float(quality["value"]),
                note=f"{item['id']}: {quality['text']}, {cost['text']} {_FROM.get(cost['from'], '')}".strip(),
            )


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    figures = item["figures"]
    quality = figures.get(item.get("decisive") or "")
    return {
        "id": str(item["id"]),
        "mark": "picked" if item["picked"] else "on the front" if item["front"] else "",
        "cells": [
            f"{item['decisive']} {quality['text']}" if quality else "–",
            *(_placed(figures.get(key)) for key in ("latency", "size")),
        ],
        "said": str(item["refusal"]) if item.get("refusal") else _bounds(item["bounds"]),
    }


def _placed(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    where = _FROM.get(figure["from"])
    return f"{figure['text']} {where}" if where else str(figure["text"])


def _bounds(bounds: Mapping[str, str]) -> str:
    """What is missed and what nobody measured; that all is kept otherwise."""
    missed = [f"misses {text}" for text, kept in bounds.items() if kept == "missed"]
    unknown = [f"{text} is unknown" for text, kept in bounds.items() if kept == "unknown"]
    return ", ".join(missed + unknown) or "keeps all bounds"
