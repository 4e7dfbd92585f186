"""A quantized variant that breaches the tolerance is built again with layers in a finer type.

The quantizer itself rescues layers until a signal-to-noise goal is met on the calibration samples (see
`quantize.rescue`); here the verdict on the evaluation data raises that goal step by step. What still
breaches after the last step is the first attempt's breach: nothing finer helped, nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit_converters.engine.plan import CALIBRATED, Wanted
from edgekit_converters.engine.prepare import Context, Prepared
from edgekit_converters.engine.variants import Checked, check_variant

STEPS = (6.0, 12.0, 20.0)
"""By how many dB the goal lies above what the plain variant reached."""
OPTION = "snr_db"
"""The target's option that holds the goal."""


def check_with_rescue(
    context: Context, prepared: Prepared, wanted: Wanted, ranges: Path | EdgekitError | None
) -> Checked:
    """`check_variant`, and again with higher goals while a calibrated precision breaches.

    Raises:
        EdgekitError: as `check_variant`.
    """

    def attempt(options: Mapping[str, Any]) -> Checked:
        return check_variant(context, prepared, replace(wanted, options=options), ranges)

    return rescued(attempt, wanted)


def rescued(attempt: Callable[[Mapping[str, Any]], Checked], wanted: Wanted) -> Checked:
    """The first attempt that does not breach; the plain one when all do."""
    plain = attempt(wanted.options)
    reached = plain.built.facts.get("quantization", {}).get("snr_db")
    if plain.verdict.verdict != "breach" or wanted.precision not in CALIBRATED or reached is None:
        return plain
    for step in STEPS:
        try:
            found = attempt({**wanted.options, OPTION: round(reached + step, 2)})
        except EdgekitError as error:
            if error.code == "disk_full":
                raise
            break
        if found.verdict.verdict != "breach":
            return found
    return plain


__all__ = ["OPTION", "check_with_rescue", "rescued"]
