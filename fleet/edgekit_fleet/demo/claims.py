"""What the demo asserts, from what it measured. Pure: values in, claims out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit_fleet.demo.traffic import Tally

RIGHT_AT_LEAST = 0.9
WRONG_AT_MOST = 0.5


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One assertion: what is claimed, whether it held, and the figures it rests on."""

    text: str
    met: bool
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Act:
    """One rollout as it went.

    `verdicts` are the newest verdicts of its gates by name, of the ring that decided; `serving` what every
    device says it serves afterwards; `traffic` is what was answered from its start until the fleet had
    settled; `seconds` until the rollout ended.
    """

    title: str
    rollout: str
    release: str
    state: str
    reason: str
    exit_code: int
    seconds: float
    verdicts: Mapping[str, str]
    why: Mapping[str, str]
    serving: Mapping[str, str]
    traffic: Tally
    rings: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def good_release(act: Act, devices: int) -> list[Claim]:
    """v1 must reach everybody and answer right."""
    everywhere = [device for device, release in act.serving.items() if release == act.release]
    accuracy = act.traffic.accuracy(act.release)
    return [
        Claim(
            text=f"{act.release} reached all {devices} devices, ring by ring",
            met=act.state == "completed" and act.exit_code == 0 and len(everywhere) == devices,
            detail=f"rollout {act.state}, {len(everywhere)} of {devices} devices serve it",
        ),
        Claim(
            text=f"its answers to real digits are right (at least {RIGHT_AT_LEAST:.0%})",
            met=accuracy is not None and accuracy >= RIGHT_AT_LEAST,
            detail=_accuracy(act.traffic, act.release),
        ),
        _none_dropped(act),
    ]


def stopped_before_serving(act: Act, good: str, devices: int) -> list[Claim]:
    """With probes on enforce, v2 must never answer, and the probe gate must stop the ring."""
    answered = act.traffic.per_release.get(act.release, 0)
    return [
        Claim(
            text=f"no answer of {act.release} was ever served",
            met=answered == 0 and act.traffic.sent > 0,
            detail=f"{answered} of {act.traffic.sent} answers",
        ),
        _gates_failed(act, ("probes",)),
        _everybody_on(act, good, devices),
        _none_dropped(act),
    ]


def stopped_after_serving(act: Act, good: str, devices: int) -> list[Claim]:
    """With probes on observe, v2 serves on the canaries only, both gates stop it, the fleet goes back."""
    answered = act.traffic.per_release.get(act.release, 0)
    served_by = act.traffic.served_by.get(act.release, ())
    canaries = set(act.rings[0]["devices"]) if act.rings else set()
    accuracy = act.traffic.accuracy(act.release)
    return [
        Claim(
            text=f"{act.release} served on the canaries and nowhere else",
            met=answered > 0 and set(served_by) == canaries and len(canaries) < devices,
            detail=f"{answered} answers on {', '.join(served_by) or 'no device'}",
        ),
        Claim(
            text="and it was wrong in the field, where every check of its author had passed",
            met=accuracy is not None and accuracy <= WRONG_AT_MOST,
            detail=_accuracy(act.traffic, act.release),
        ),
        _gates_failed(act, ("probes", "predictions")),
        _everybody_on(act, good, devices),
        _none_dropped(act),
    ]


def nothing_left(pids: Sequence[int]) -> Claim:
    """Nothing may run on."""
    return Claim(
        text="nothing is left running",
        met=not pids,
        detail="every process has ended" if not pids else f"still there: {', '.join(map(str, pids))}",
    )


def all_met(claims: Iterable[Claim]) -> bool:
    """Whether every claim held."""
    return all(claim.met for claim in claims)


def _gates_failed(act: Act, names: Sequence[str]) -> Claim:
    failed = [name for name in names if act.verdicts.get(name) == "fail"]
    said = "; ".join(act.why.get(name, f"{name}: not judged") for name in names)
    words = "gates" if len(names) > 1 else "gate"
    return Claim(
        text=f"the {' and '.join(names)} {words} stopped the ring by themselves"
        if len(names) > 1
        else f"the {names[0]} {words} stopped the ring by itself",
        met=len(failed) == len(names) and act.state == "rolled_back" and act.exit_code == 3,
        detail=f"{said}; rollout {act.state}",
    )


def _everybody_on(act: Act, release: str, devices: int) -> Claim:
    there = [device for device, serves in act.serving.items() if serves == release]
    return Claim(
        text=f"all {devices} devices are on {release} afterwards, nobody had to do anything",
        met=len(there) == devices,
        detail=f"{len(there)} of {devices}",
    )


def _none_dropped(act: Act) -> Claim:
    return Claim(
        text="no request was dropped",
        met=act.traffic.dropped == 0 and act.traffic.sent > 0,
        detail=f"{act.traffic.sent} sent, {act.traffic.dropped} dropped, slowest {act.traffic.worst:.0f} ms"
        + (f"; first: {act.traffic.first_error}" if act.traffic.first_error else ""),
    )


def _accuracy(traffic: Tally, release: str) -> str:
    share = traffic.accuracy(release)
    if share is None:
        return f"{release} answered nothing"
    return f"{traffic.right[release]} of {traffic.per_release[release]} right ({share:.1%})"
