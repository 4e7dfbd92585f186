"""Which devices belong to a ring: salted-hash membership per hardware, frozen when the ring opens.

A device's position is a hash of salt and id, so membership depends on nothing that correlates with
its behaviour, a raised percentage keeps its members, and another rollout (another salt) has other
canaries. In every hardware that matches, at least the device with the lowest position is taken: no
hardware is left without a canary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgekit.documents import DeviceFacts
from edgekit_fleet.rollout.plan import Disruption, Select, Term

LATE_RING = "late"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A device that might be taken: its id and what it says of itself."""

    device: str
    facts: DeviceFacts

    @property
    def hardware(self) -> str:
        """Its stratum."""
        return self.facts.hardware


def position(salt: str, device: str) -> float:
    """Position within [0, 1) that salt and device id give."""
    digest = hashlib.sha256(f"{salt}|{device}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def choose_members(
    select: Select, fleet: Iterable[Candidate], *, salt: str, taken: Collection[str] = ()
) -> tuple[str, ...]:
    """Devices a ring takes, ordered by position; `taken` are already in earlier rings.

    The percentage is of the matching devices of each hardware whether taken or not, so that it is
    cumulative over rings.
    """
    matching = [item for item in fleet if matches(select, item)]
    chosen: list[Candidate] = []
    for hardware in sorted({item.hardware for item in matching}):
        members = [item for item in matching if item.hardware == hardware]
        chosen += _below(members, select.percent, salt)
    ordered = sorted(chosen, key=lambda item: (position(salt, item.device), item.device))
    return tuple(item.device for item in ordered if item.device not in taken)


def _below(members: Sequence[Candidate], share: float | None, salt: str) -> list[Candidate]:
    if share is None or share >= 100:
        return list(members)
    lowest = min(members, key=lambda item: (position(salt, item.device), item.device))
    return [item for item in members if item is lowest or position(salt, item.device) < share / 100]


def matches(select: Select, item: Candidate) -> bool:
    """Whether a device meets all of `select` but the percentage."""
    if select.devices and item.device not in select.devices:
        return False
    if any(item.facts.labels.get(key) != value for key, value in select.labels.items()):
        return False
    return all(_holds(term, item) for term in select.terms)


def _holds(term: Term, item: Candidate) -> bool:
    found = any(fnmatchcase(value, term.pattern) for value in _values(term.key, item))
    return found is not term.negated


def _values(key: str, item: Candidate) -> tuple[str, ...]:
    facts = item.facts
    if key.startswith("label."):
        value = facts.labels.get(key.removeprefix("label."))
        return (value,) if value is not None else ()
    return {
        "device": (item.device,),
        "hardware": (facts.hardware,),
        "machine": (facts.machine,),
        "model": (facts.model or "",),
        "os": (facts.os,),
        "agent": (facts.agent,),
        "runtime": tuple(facts.runtimes),
    }[key]


def within_budget(
    waiting: Sequence[Candidate], changing: Sequence[Candidate], budget: Disruption, tokens: int | None
) -> tuple[str, ...]:
    """Which of the waiting devices may be notified now.

    Args:
        waiting: devices not yet notified, in the ring's order.
        changing: devices in the middle of an update.
        budget: how many of a group may change at once.
        tokens: how many the rate limit still allows, None for no limit.
    """
    busy: dict[str, int] = {}
    for item in changing:
        busy[_group(item, budget)] = busy.get(_group(item, budget), 0) + 1
    picked: list[str] = []
    for item in waiting:
        group = _group(item, budget)
        if tokens is not None and len(picked) >= tokens:
            break
        if budget.max_unavailable and busy.get(group, 0) >= budget.max_unavailable:
            continue
        busy[group] = busy.get(group, 0) + 1
        picked.append(item.device)
    return tuple(picked)


def _group(item: Candidate, budget: Disruption) -> str:
    return item.facts.labels.get(budget.group_by, "") if budget.group_by else ""
