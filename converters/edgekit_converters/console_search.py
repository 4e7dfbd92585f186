"""How a budget's search is printed: what was tried, the Pareto front, the choice of each profile and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from edgekit_converters.budget.front import brief

_FROM = {"target": "on target", "host": "on host"}


def print_search(console: Console, search: Mapping[str, Any]) -> None:
    """Print it."""
    console.print(f"budget [bold]{search['budget']}[/]; ● on the Pareto front, ✔ picked", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("", "candidate", "quality", "latency", "size", "bounds"):
        table.add_column(name)
    for item in search["candidates"]:
        table.add_row(*_row(item))
    console.print(table)
    for choice in search["choices"]:
        colour = "green" if choice["picked"] else "red"
        console.print(f"[{colour}]{choice['profile']}[/]: {choice['why']}", soft_wrap=True)
        if choice["would_fit"]:
            console.print(f"        {choice['would_fit']}", soft_wrap=True)


def _row(item: Mapping[str, Any]) -> list[str]:
    mark = "✔" if item["picked"] else "●" if item["front"] else ""
    if item["refusal"]:
        return [mark, f"[dim]{item['id']}[/]", "", "", "", f"[dim]{brief(item['refusal'])}[/]"]
    figures = item["figures"]
    decisive = item["decisive"]
    quality = f"{decisive} {figures[decisive]['text']}" if decisive else "–"
    missed = [text for text, kept in item["bounds"].items() if kept == "missed"]
    unknown = [text for text, kept in item["bounds"].items() if kept == "unknown"]
    bounds = [f"[red]misses {text}[/]" for text in missed] + [
        f"[yellow]{text} unknown[/]" for text in unknown
    ]
    return [
        mark,
        item["id"],
        quality,
        _placed(figures.get("latency")),
        _placed(figures.get("size")),
        ", ".join(bounds) or "[green]keeps all[/]",
    ]


def _placed(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    where = _FROM.get(figure["from"])
    return f"{figure['text']} {where}" if where else str(figure["text"])


__all__ = ["print_search"]
