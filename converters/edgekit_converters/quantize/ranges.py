"""Ranges out of the stored calibration: where to clip each tensor. Pure functions of statistics."""

from __future__ import annotations

from edgekit_converters.quantize.statistics import Statistics


def minmax(found: Statistics) -> dict[str, tuple[float, float]]:
    """Nothing that was seen is clipped."""
    return {name: (item.low, item.high) for name, item in found.tensors.items()}
