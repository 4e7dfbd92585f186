"""The accuracy × size × latency plot as inline SVG; colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 18, 46


@dataclass(frozen=True, kw_only=True)
class Point:
    """One artifact: `size` in kB, `quality` within [0, 1] or dB, `latency` in µs (the dot's area)."""

    label: str
    precision: str
    size: float
    quality: float
    latency: float | None


def scatter(points: Sequence[Point], quality: str) -> str:
    """Size (logarithmic) against quality; empty text without points."""
    if not points:
        return ""
    sizes = [math.log10(max(item.size, 1e-3)) for item in points]
    values = [item.quality for item in points]
    x_low, x_high = _padded(min(sizes), max(sizes), 0.08)
    y_low, y_high = _padded(min(values), max(values), 0.25)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(size: float, value: float) -> tuple[float, float]:
        x = _LEFT + width * (size - x_low) / (x_high - x_low)
        return x, _TOP + height * (1 - (value - y_low) / (y_high - y_low))

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(quality)} against size">',
        *_grid(x_low, x_high, y_low, y_high, place),
        f'<text class="axis" x="{_LEFT + width / 2}" y="{_HEIGHT - 8}">size in kB (logarithmic)</text>',
        f'<text class="axis" transform="translate(14 {_TOP + height / 2}) rotate(-90)">',
        f"{escape(quality)}</text>",
    ]
    placed: list[tuple[float, float]] = []
    for item, size in zip(points, sizes, strict=True):
        x, y = place(size, item.quality)
        radius = 6.0 if item.latency is None else min(18.0, 4 + 1.6 * math.sqrt(max(item.latency, 1)) / 2)
        shown = "not measured" if item.latency is None else f"{item.latency:.0f} µs"
        parts.append(
            f'<circle class="dot {escape(item.precision)}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
            f"<title>{escape(item.label)}: {item.size:.1f} kB, {item.quality:.4g}, {shown}</title></circle>"
        )
        shift = sum(1 for px, py in placed if abs(px - x) < 90 and abs(py - y) < 12)
        placed.append((x, y))
        lifted = y - radius - 4 - 13 * shift
        parts.append(f'<text class="mark" x="{x:.1f}" y="{lifted:.1f}">{escape(item.label)}</text>')
    return "".join(parts) + "</svg>"


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    margin = share * (high - low) or max(0.01, 0.01 * abs(high))
    return low - margin, high + margin


def _grid(x_low: float, x_high: float, y_low: float, y_high: float, place: object) -> list[str]:
    assert callable(place)
    parts = []
    for index in range(5):
        value = y_low + (y_high - y_low) * index / 4
        _, y = place(x_low, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" text-anchor="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{value:.4g}</text>'
        )
        size = x_low + (x_high - x_low) * index / 4
        x, _ = place(size, y_low)
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{_HEIGHT - 28}">{10**size:.3g}</text>'
        )
    return parts
