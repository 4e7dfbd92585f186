"""Whether the calibration can be believed: codes of what looks wrong, and how often ranges are left.

`edgekit_converters.data` looks at the samples alone; here they are seen through the graph: tensors that
never move, and evaluation inputs that lie outside of what was calibrated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit_converters.quantize.statistics import Statistics

FEW = 32
_LEFT = 0.01
_SCALES = 16.0


def doubts(found: Statistics) -> tuple[str, ...]:
    """Codes: ``one_sample`` or ``too_few_samples``, and ``constant_tensors`` when most never change."""
    codes = []
    if found.samples == 1:
        codes.append("one_sample")
    elif found.samples < FEW:
        codes.append("too_few_samples")
    still = sum(item.low == item.high for item in found.tensors.values())
    if found.tensors and still > len(found.tensors) / 2:
        codes.append("constant_tensors")
    return tuple(codes)


def outside(found: Statistics, inputs: Mapping[str, Any]) -> dict[str, float]:
    """By input, the share of values beyond the calibrated range."""
    shares = {}
    for name, value in inputs.items():
        known = found.tensors.get(name)
        if known is not None and np.size(value):
            shares[name] = float(np.mean((value < known.low) | (value > known.high)))
    return shares


def range_doubts(found: Statistics, inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Codes: ``wrong_scale`` (0 to 255 against 0 to 1) or ``range_left`` by more than a hundredth."""
    codes = []
    shares = outside(found, inputs)
    for name in shares:
        known = found.tensors[name]
        ours, theirs = max(-known.low, known.high), float(np.abs(inputs[name]).max())
        if min(ours, theirs) > 0 and max(ours, theirs) / min(ours, theirs) > _SCALES:
            codes.append("wrong_scale")
        elif shares[name] > _LEFT:
            codes.append("range_left")
    return tuple(dict.fromkeys(codes))
