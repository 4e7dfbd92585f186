"""What a plan names that the fleet does not have: devices, labels, values, whole rings. Pure.

A ring that selects everything, or a share of everything, is never unmatched: its devices may enrol
later, and a rollout that nobody could take is held besides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from edgekit.tomlfile import did_you_mean
from edgekit_fleet.rollout.plan import Plan, Select
from edgekit_fleet.rollout.rings import Candidate, matches


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """`warnings` for people, one a name; `empty` are the indices of rings that select no device at all."""

    warnings: tuple[str, ...]
    empty: tuple[int, ...]


def unmatched(plan: Plan, fleet: Sequence[Candidate]) -> Unmatched:
    """Compare a plan with the devices that are enrolled, whether they can take the release or not."""
    warnings: list[str] = []
    empty = []
    for index, ring in enumerate(plan.rings):
        warnings += [f"ring {ring.name}: {text}" for text in _unknown(ring.select, fleet)]
        named = replace(ring.select, percent=None)
        if named != Select() and not any(matches(named, item) for item in fleet):
            warnings.append(f"ring {ring.name}: no device of the fleet matches {named.words}")
            empty.append(index)
    return Unmatched(warnings=tuple(warnings), empty=tuple(empty))


def _unknown(select: Select, fleet: Sequence[Candidate]) -> list[str]:
    known = [item.device for item in fleet]
    found = [
        f"there is no device {name!r}; {_advice(name, known)}" for name in select.devices if name not in known
    ]
    for key, value in select.labels.items():
        values = {item.facts.labels[key] for item in fleet if key in item.facts.labels}
        if not values:
            labels = {name for item in fleet for name in item.facts.labels}
            found.append(f"no device has a label {key!r}; {_advice(key, labels)}")
        elif value not in values:
            found.append(f"no device has the label {key}={value}; {_advice(value, values)}")
    return found


def _advice(word: str, known: Collection[str]) -> str:
    """The nearest names; a large fleet's are not all listed."""
    advice = did_you_mean(word, known)
    return advice if len(known) <= 12 or advice.startswith("did you") else f"{len(known)} are known"


__all__ = ["Unmatched", "unmatched"]
