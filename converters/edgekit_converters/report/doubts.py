"""What the warnings about the data say to a reader, by their code."""

from __future__ import annotations

_VALIDATION = {
    "labels_not_used": "labels are not used: no output has a task (model.toml: [[outputs]] task)",
    "labels_shifted": "the source is right less often than by chance; are labels counted from 0?",
    "range_left": "values lie outside of the range that was calibrated",
    "wrong_scale": "another scale than the calibration data (0 to 255 against 0 to 1?)",
}


def warned(code: str) -> str:
    """A sentence; codes that are not about the validation data are about the calibration data."""
    said = _VALIDATION.get(code)
    return f"validation data: {said}" if said else f"calibration data: {code.replace('_', ' ')}"
