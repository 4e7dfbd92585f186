"""The search under a budget, if one was asked for: what was tried, the Pareto front, what was picked and why.

The facts (``budget`` in the report) are made by the search; here they are only shown. ``tried`` lists one
recipe each: `label`, `precision`, `quality`, `size_kb`, `latency_ms` (with `latency_on`: ``host`` or a
device), and whether it is on the `front`, `fits` and was `chosen`; `why` says what it breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit_converters.report.plot import Point, scatter


def choice(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of the search, plots as SVG text; None where there was none."""
    if not facts:
        return None
    tried = list(facts.get("tried", ()))
    quality = str(facts.get("quality", "quality"))
    axes = (("size_kb", "size in kB"), ("latency_ms", "latency in ms"))
    plots = (scatter(_points(tried, key), quality, title) for key, title in axes)
    return {
        "asked": str(facts.get("asked", "")),
        "why": str(facts.get("why", "")),
        "plots": [plot for plot in plots if plot],
        "columns": [quality, "size", "latency"],
        "rows": [_row(item) for item in tried],
    }


def _points(tried: list[Mapping[str, Any]], key: str) -> list[Point]:
    """The recipes that have both figures; the chosen one is marked."""
    return [
        Point(
            label=f"{item['label']}{' (chosen)' if item.get('chosen') else ''}",
            precision=str(item.get("precision", "")),
            x=float(item[key]),
            quality=float(item["quality"]),
            ran=str(item.get("method", "executed")),
        )
        for item in tried
        if item.get(key) is not None and item.get("quality") is not None
    ]


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    latency, kilobytes, quality = (item.get(key) for key in ("latency_ms", "size_kb", "quality"))
    where = str(item.get("latency_on", "host"))
    said = [word for word, key in (("chosen", "chosen"), ("on the Pareto front", "front")) if item.get(key)]
    said += [] if item.get("fits", True) else ["outside the budget"]
    return {
        "label": str(item["label"]),
        "cells": [
            "–" if quality is None else f"{float(quality):.4f}",
            "–" if kilobytes is None else f"{float(kilobytes):.1f} kB",
            "–" if latency is None else f"{float(latency):.3g} ms on {where}",
        ],
        "said": "; ".join([", ".join(said) or "not chosen", *filter(None, [str(item.get("why", ""))])]),
    }
