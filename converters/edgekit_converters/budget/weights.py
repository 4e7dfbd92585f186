"""The least a model's weights can take: bounds a variant's size before anything is built.

A bound, never an estimate: what it refuses cannot fit, whatever the compiler does. Biases, structure and
layers that stay in floats come on top.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgekit.profile import Budgets, Profile

BITS = {
    "fp32": 32.0,
    "fp16": 16.0,
    "dynamic": 8.0,
    "int8": 8.0,
    "int16x8": 8.0,
    "w8": 8.0,
    "int4": 4.0,
    "pruned": 2.0,
    "clustered": 1.0,
    "sparse50": 4.5,
    "sparse75": 2.25,
    **{f"palettized{n}": float(n) for n in (8, 6, 4, 3, 2, 1)},
}
"""Bits a weight takes at least."""
_FILE_BITS = {"onnx": 32.0, "tflite": 32.0}
"""Kinds of source whose file is hardly more than its weights, and the widest type they are stored in."""
_OTHERS = 32.0 * 4
"""The same of a training file, which may hold an optimizer's moments beside each weight and its gradient."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TooLarge:
    """Why weights do not fit a board, and what would help."""

    detail: str
    remedy: str


def least_weights(kind: str, source_bytes: int) -> int:
    """How many weights a source of this many bytes has at least."""
    return int(source_bytes * 8 / _FILE_BITS.get(kind, _OTHERS) / 2)


def least_bytes(weights: int, precision: str) -> float:
    """Bytes that so many weights take at least in a precision."""
    return weights * BITS.get(precision, 1.0) / 8


def too_large(
    weights: int, profile: Profile, target: str, precision: str, others: Iterable[Profile] = ()
) -> TooLarge | None:
    """Whether the weights alone are more than the board has room for.

    Args:
        weights: how many the model has, or at least has.
        profile: the board.
        target, precision: what shall be built.
        others: boards to name instead.
    """
    found = _short(least_bytes(weights, precision), profile.budgets)
    if found is None:
        return None
    what, room = found
    return TooLarge(
        detail=(
            f"{_count(weights)} weights take at least {_mb(least_bytes(weights, precision))} as {precision}, "
            f"{profile.name} has {_mb(room)} of {what}"
        ),
        remedy=_remedy(weights, profile, target, precision, others),
    )


def _short(needed: float, budgets: Budgets) -> tuple[str, float] | None:
    rooms = (
        ("program memory (flash) for a model", budgets.flash_kb, 1024.0),
        ("room for a model's file", budgets.size_mb, 2.0**20),
        ("memory for a model", budgets.memory_mb, 2.0**20),
    )
    for what, amount, unit in rooms:
        if amount is not None and needed > amount * unit:
            return what, amount * unit
    return None


def _remedy(weights: int, profile: Profile, target: str, precision: str, others: Iterable[Profile]) -> str:
    finer = [
        item
        for item in profile.target(target).precisions
        if BITS.get(item, 32.0) < BITS.get(precision, 32.0)
        and _short(least_bytes(weights, item), profile.budgets) is None
    ]
    if finer:
        return f"as {' or '.join(finer[:_SHOWN])} the weights would fit: --precision {finer[0]}"
    roomy = [
        item.name
        for item in others
        if any(found.name == target for found in item.targets)
        and _short(least_bytes(weights, precision), item.budgets) is None
    ]
    if roomy:
        boards = ", ".join(roomy[:_SHOWN])
        return f"no precision of this board is small enough; as {precision} there is room on {boards}"
    least = min((BITS.get(item, 32.0) for item in profile.target(target).precisions), default=32.0)
    _, room = _short(least_bytes(weights, precision), profile.budgets) or ("", 0.0)
    most = _count(int(room * 8 / least))
    return f"use a smaller model: at most {most} weights fit; it fits no shipped profile with {target}"


def _count(number: int) -> str:
    if number >= 0.95e6:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 1e3 else str(number)


def _mb(size: float) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 1024:.0f} KiB"


__all__ = ["BITS", "TooLarge", "least_bytes", "least_weights", "too_large"]
