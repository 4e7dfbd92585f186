"""The evidence of one variant as inline SVG and HTML: predictions, confusion, gain. Everything is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 340, 150
_BASE = 118
_LAYERS = 60
_WORST = 5


def predictions(found: Mapping[str, Any]) -> str:
    """Two bars a class or bin: source and variant."""
    ticks, pairs = found["ticks"], list(zip(found["source"], found["variant"], strict=True))
    top = max((max(pair) for pair in pairs), default=0) or 1
    step = (_WIDTH - 20) / max(1, len(pairs))
    parts = [_open(f"predictions of {found['output']}, source and variant")]
    every = max(1, len(pairs) // 10)
    for index, pair in enumerate(pairs):
        for place, (count, kind) in enumerate(zip(pair, ("source", "variant"), strict=True)):
            height = 100 * count / top
            x = 10 + step * index + place * step * 0.42 + step * 0.08
            parts.append(
                f'<rect class="bar {kind}" x="{x:.1f}" y="{_BASE - height:.1f}" width="{step * 0.4:.1f}" '
                f'height="{height:.1f}"><title>{escape(str(ticks[index]))}: {count} {kind}</title></rect>'
            )
        if index % every == 0:
            x = 10 + step * (index + 0.5)
            parts.append(f'<text class="axis" x="{x:.1f}" y="134">{escape(str(ticks[index]))[:9]}</text>')
    return "".join([*parts, "</svg>"])


def confusion(counts: Sequence[Sequence[int]]) -> str:
    """A shaded table, labels down, answers across."""
    size = len(counts)
    head = "".join(f"<th>{kind}</th>" for kind in range(size))
    rows = []
    for kind, row in enumerate(counts):
        total = sum(row) or 1
        cells = "".join(_cell(count, count / total, right=kind == answer) for answer, count in enumerate(row))
        rows.append(f"<tr><th>{kind}</th>{cells}</tr>")
    return f'<table class="confusion"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def gain(found: Mapping[str, Sequence[float]]) -> str:
    """Cumulative gain of source and variant against chance."""
    parts = [_open("cumulative gain, source and variant")]
    parts.append(f'<line class="grid" x1="10" y1="{_BASE}" x2="{_WIDTH - 10}" y2="18"/>')
    for kind in ("source", "variant"):
        points = [(0.0, 0.0), *(((i + 1) / len(found[kind]), v) for i, v in enumerate(found[kind]))]
        path = " ".join(f"{10 + (_WIDTH - 20) * x:.1f},{_BASE - 100 * y:.1f}" for x, y in points)
        parts.append(f'<polyline class="curve {kind}" points="{path}"/>')
    parts.append(f'<text class="axis" x="{_WIDTH / 2}" y="134">share of samples looked at</text></svg>')
    return "".join(parts)


def layers(found: Sequence[Mapping[str, Any]]) -> str:
    """A bar a layer, in the graph's order: signal to noise in dB after it, at most 60 shown."""
    shown = found[:_LAYERS]
    step = (_WIDTH - 38) / max(1, len(shown))
    parts = [_open("signal to noise after each layer, in dB")]
    for level in (20, 40, 60):
        y = _BASE - 100 * level / 60
        parts.append(f'<line class="grid" x1="28" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="24" y="{y + 4:.1f}">{level}</text>')
    for index, item in enumerate(shown):
        snr = float(item["snr"])
        height = max(1.0, min(60.0, snr)) * 100 / 60
        kind = "low" if snr < 20 else "fair" if snr < 30 else "variant"
        parts.append(
            f'<rect class="bar {kind}" x="{30 + step * index:.1f}" y="{_BASE - height:.1f}" '
            f'width="{step * 0.8:.1f}" height="{height:.1f}"><title>{escape(str(item["name"]))} '
            f"({escape(str(item['op']))}): {snr:.1f} dB</title></rect>"
        )
    more = f", the first {_LAYERS} of {len(found)}" if len(found) > _LAYERS else ""
    parts.append(f'<text class="axis" x="{_WIDTH / 2}" y="138">layers in order{more}</text></svg>')
    return "".join(parts)


def worst_layers(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The layers that add most noise, most first; none of a variant that was not quantized by us."""
    found = facts.get("quantization", {}).get("layers", [])
    ranked = sorted(found, key=lambda item: float(item["added"]), reverse=True)[:_WORST]
    return [
        {"name": str(item["name"]), "op": str(item["op"]), "snr": f"{float(item['snr']):.1f} dB"}
        for item in ranked
    ]


def panels(found: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """All panels that the evidence and the quantizer's facts allow, by title."""
    shown: dict[str, str] = {}
    analysed = facts.get("quantization", {}).get("layers", [])
    if "distribution" in found:
        shown[f"Predictions ({escape(str(found['distribution']['output']))})"] = predictions(
            found["distribution"]
        )
    if "confusion" in found:
        shown["Confusion: label down, answer across"] = confusion(found["confusion"])
    if "gain" in found:
        shown["Gain of class 1"] = gain(found["gain"])
    if analysed:
        shown["Signal to noise after each layer (dB)"] = layers(analysed)
    return shown


def _open(label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'


def _cell(count: int, share: float, *, right: bool) -> str:
    kind = "hit" if right else "miss"
    return f'<td class="{kind}" style="--share:{share:.3f}">{count or ""}</td>'
