"""Quality against size and against latency as inline SVG; colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 470, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 16, 16, 48
_LETTER, _LINE, _DOT = 6.4, 14.0, 6.0
COLOURED = ("fp32", "fp16", "dynamic", "int8", "int16x8")
"""Precisions that have a colour of their own; the others share one."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One artifact: `x` in the axis' unit, `quality` within [0, 1] or dB; `ran` is how it was checked."""

    label: str
    precision: str
    x: float
    quality: float
    ran: str = "executed"
    note: str = ""


def kinds_of(points: Sequence[Point]) -> list[str]:
    """The colours in use, as the page's style calls them."""
    found = {item.precision if item.precision in COLOURED else "other" for item in points}
    return [kind for kind in (*COLOURED, "other") if kind in found]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle that text or a dot takes."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether they overlap."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


def scatter(points: Sequence[Point], quality: str, axis: str) -> str:
    """`axis` (logarithmic, less is better) against `quality` (more is better); empty text without points.

    A line joins the artifacts that no other one beats in both. Labels stand where they hide nothing.
    """
    if not points:
        return ""
    view = _View.of(points)
    dots = [view.place(item.x, item.quality) for item in points]
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" ',
        f'aria-label="{escape(quality)} against {escape(axis)}">',
        *view.grid(),
        f'<text class="axis" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}">{escape(axis)}</text>',
        f'<text class="axis" transform="translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)">',
        f"{escape(quality)}</text>",
        _front(points, view),
        *(_dot(item, x, y) for item, (x, y) in zip(points, dots, strict=True)),
        *_labels([item.label for item in points], dots),
    ]
    return "".join(parts) + "</svg>"


@dataclass(frozen=True, kw_only=True)
class _View:
    """The plane's limits: the logarithm of x, and quality."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def of(cls, points: Sequence[Point]) -> _View:
        x_low, x_high = _padded([math.log10(max(item.x, 1e-3)) for item in points], 0.1, 0.15)
        y_low, y_high = _padded([item.quality for item in points], 0.18, 0.01)
        return cls(x_low=x_low, x_high=x_high, y_low=y_low, y_high=y_high)

    def place(self, x: float, quality: float) -> tuple[float, float]:
        """Where a value lies in the picture."""
        across = (math.log10(max(x, 1e-3)) - self.x_low) / (self.x_high - self.x_low)
        up = (quality - self.y_low) / (self.y_high - self.y_low)
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return _LEFT + width * across, _TOP + height * (1 - up)

    def grid(self) -> Iterable[str]:
        """Lines and numbers at round values of both axes."""
        floor = _HEIGHT - _BOTTOM
        for value in _round(self.y_low, self.y_high):
            _, y = self.place(1.0, value)
            yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick end" x="{_LEFT - 7}" y="{y + 4:.1f}">{value:.6g}</text>'
        for value in _round_logarithms(self.x_low, self.x_high):
            x, _ = self.place(value, self.y_low)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}"/>'
            yield f'<text class="tick middle" x="{x:.1f}" y="{floor + 17}">{value:,.6g}</text>'


def _padded(values: Sequence[float], share: float, least: float) -> tuple[float, float]:
    margin = max(share * (max(values) - min(values)), least)
    return min(values) - margin, max(values) + margin


def _round(low: float, high: float) -> list[float]:
    """Four to eight round values between the limits."""
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(step * times for times in (0.5, 1, 2, 5, 10) if (high - low) / (step * times) <= 8)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _round_logarithms(low: float, high: float) -> list[float]:
    """Values 1, 2, 5 times a power of ten between the limits, at most six; round ones where these are few."""
    found = [
        times * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for times in (1, 2, 5)
        if low <= math.log10(times * 10.0**power) <= high
    ]
    if len(found) < 3:
        found = _round(10.0**low, 10.0**high)
    return found[:: -(-len(found) // 6)] if found else []


def _front(points: Sequence[Point], view: _View) -> str:
    """A line through the artifacts that no other beats in both directions; nothing for a single one."""
    best: list[Point] = []
    for item in sorted(points, key=lambda point: (point.x, -point.quality)):
        if not best or item.quality > best[-1].quality:
            best.append(item)
    if len(best) < 2:
        return ""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (view.place(item.x, item.quality) for item in best))
    return f'<polyline class="front" points="{places}"/>'


def _dot(item: Point, x: float, y: float) -> str:
    colour = item.precision if item.precision in COLOURED else "other"
    said = escape(f"{item.label}: {item.note or f'{item.x:.4g}, {item.quality:.4g}'}")
    kind = f'class="dot {colour} {escape(item.ran)}"'
    if item.ran == "executed":
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}"><title>{said}</title></circle>'
    corners = [(x, y - 7.5), (x + 7.5, y), (x, y + 7.5), (x - 7.5, y)]
    places = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return f'<polygon {kind} points="{places}"><title>{said}</title></polygon>'


def _labels(texts: Sequence[str], dots: Sequence[tuple[float, float]]) -> Iterable[str]:
    """Each text beside its dot, where it hides nothing; left out where every place hides something."""
    taken = [Box(left=x - 7, top=y - 7, right=x + 7, bottom=y + 7) for x, y in dots]
    for text, (x, y) in zip(texts, dots, strict=True):
        free = (
            (anchor, box)
            for anchor, box in _places(len(text) * _LETTER, x, y)
            if _inside(box) and not any(box.meets(other) for other in taken)
        )
        anchor, box = next(free, ("", None))
        if box is not None:
            taken.append(box)
            x = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
            yield f'<text class="mark {anchor}" x="{x:.1f}" y="{box.bottom - 3:.1f}">{escape(text)}</text>'


def _inside(box: Box) -> bool:
    return box.left >= _LEFT and box.right <= _WIDTH - 4 and box.top >= 2 and box.bottom <= _HEIGHT - _BOTTOM


def _places(width: float, x: float, y: float) -> Iterable[tuple[str, Box]]:
    half, gap = _LINE / 2, 9.0
    yield "start", Box(left=x + gap, top=y - half, right=x + gap + width, bottom=y + half)
    yield "end", Box(left=x - gap - width, top=y - half, right=x - gap, bottom=y + half)
    for lift in (-1, 1):
        middle = y + lift * (gap + half)
        yield "middle", Box(left=x - width / 2, top=middle - half, right=x + width / 2, bottom=middle + half)
    for lift in (-1, 1):
        middle = y + lift * (gap + half)
        yield "start", Box(left=x, top=middle - half, right=x + width, bottom=middle + half)
        yield "end", Box(left=x - width, top=middle - half, right=x, bottom=middle + half)
