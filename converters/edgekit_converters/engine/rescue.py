"""A quantized variant that breaches the tolerance is built again with layers in a finer type.

The quantizer itself rescues layers until a signal-to-noise goal is met on the calibration samples (see
`quantize.rescue`); here the verdict on the evaluation data raises that goal step by step. What still
breaches after the last step is the first attempt's breach: nothing finer helped, nothing is hidden.

A rescue has a price. `without_gain` holds a rescued variant against the same target's fp32: what is not
smaller any more, or slower, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.package import Refusal
from edgekit_converters.engine.figures import measured, size
from edgekit_converters.engine.plan import CALIBRATED, Plan, Wanted
from edgekit_converters.engine.prepare import Context, Prepared
from edgekit_converters.engine.variants import Checked, check_variant
from edgekit_converters.targets import load_target
from edgekit_converters.values import OTHER_KERNELS

STEPS = (6.0, 12.0, 20.0)
"""By how many dB the goal lies above what the plain variant reached."""
OPTION = "snr_db"
"""The target's option that holds the goal."""
_NOISE = 1.05
"""What two medians of the same thing may differ by when they are measured one after the other."""


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


def without_gain(context: Context, prepared: Prepared, wanted: Wanted, checked: Checked) -> Refusal | None:
    """Why a rescued variant is refused: it is no smaller than fp32, or slower on this host.

    Only where a rescue happened is fp32 built for this, if nobody asked for it; a target that has no fp32,
    or refuses it, leaves nothing to compare with.
    """
    rescue = rescue_of(checked)
    if rescue is None or "fp32" not in load_target(wanted.target).precisions:
        return None
    options = {name: value for name, value in wanted.options.items() if name != OPTION}
    sibling = replace(wanted, precision="fp32", options=options)
    try:
        plain = check_variant(context, prepared, sibling, None)
    except EdgekitError as error:
        if error.code == "disk_full":
            raise
        return None
    pairs = ((wanted, checked), (sibling, plain))
    found = [measured(context, prepared, *pair) for pair in pairs]
    told = wanted.target not in OTHER_KERNELS
    times = [float(item["latency_us"]["median"]) if told and item is not None else None for item in found]
    return compared(wanted, rescue, (size(checked), size(plain)), (times[0], times[1]))


def compared(
    wanted: Wanted,
    rescue: Mapping[str, Any],
    sizes: tuple[int, int],
    times: tuple[float | None, float | None],
) -> Refusal | None:
    """The decision on (rescued, fp32) bytes and microseconds; times that nobody measured decide nothing."""
    ours, theirs = times
    slower = ours is not None and theirs is not None and ours > _NOISE * theirs
    if sizes[0] < sizes[1] and not slower:
        return None
    against = f"{sizes[0] / 1000:.1f} kB against fp32's {sizes[1] / 1000:.1f} kB"
    speed = f" and {ours:.0f} against {theirs:.0f} µs here" if ours and theirs else ""
    return Refusal(
        id=wanted.id,
        reason_code="rescue_without_gain",
        detail=f"{wanted.precision} is accurate enough only with {len(rescue['layers'])} layers in "
        f"{rescue['to']}, and then has {against}{speed}",
        remedy="use fp32 or fp16, or better calibration data",
    )


def rescue_of(checked: Checked) -> Mapping[str, Any] | None:
    """What the quantizer says of a rescue, None where there was none."""
    found: Mapping[str, Any] | None = checked.built.facts.get("quantization", {}).get("rescue")
    return found


def rescue_notes(plan: Plan, outcomes: Mapping[str, Checked | Refusal]) -> Iterator[str]:
    """One sentence a rescued variant: what it cost; and what the targets have to tell (fact `notes`)."""
    for wanted in plan.wanted:
        found = outcomes[wanted.id]
        if isinstance(found, Refusal):
            continue
        yield from (f"{wanted.id}: {note}" for note in found.built.facts.get("notes", ()))
        saved = rescue_of(found)
        if saved is None:
            continue
        share = f"{100 * saved['share_of_work']:.0f} % of the multiplications"
        yield (
            f"{wanted.id}: {len(saved['layers'])} layers stay in {saved['to']}, "
            f"{saved['more_bytes']} bytes more, {share}"
        )


__all__ = ["OPTION", "check_with_rescue", "compared", "rescue_notes", "rescued", "without_gain"]
