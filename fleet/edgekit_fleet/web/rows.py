"""From the database's rows to what the page is told. Pure; reads no database by itself.

`news` puts into words what changed between two views of the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekit.contract import Contract
from edgekit.documents import DeviceStep, Reported
from edgekit_fleet.db.rollouts import MemberRow, RingRow, RolloutRow, StepRow
from edgekit_fleet.db.tables import DeviceRow, ProbeSetRow, SlotRow
from edgekit_fleet.devices import ONLINE, facts_of
from edgekit_fleet.rollout.counting import count
from edgekit_fleet.rollout.states import MemberStep, RingState
from edgekit_fleet.rollouts import back_of, member_of, plan_of, ring_plan
from edgekit_fleet.web.views import (
    ActiveView,
    DeviceView,
    GateView,
    LogView,
    ProbeView,
    RingView,
    RolloutView,
    SlotView,
    device_status,
    reason_view,
)

_BAD_STATES = frozenset({"failed", "rolling_back", "rolled_back", "rollback_failed", "aborted"})
_GOOD_STATES = frozenset({"completed", "passed"})


def device_view(
    row: DeviceRow, *, place: tuple[str, str] | None = None, probes: Iterable[ProbeView] = ()
) -> DeviceView:
    """A device; `place` is its newest rollout's id and the name of its ring there."""
    facts = facts_of(row)
    reported = Reported.from_dict(row.reported) if row.reported else None
    step = reported.step if reported else DeviceStep.IDLE
    slots = reported.slots.items() if reported else ()
    return DeviceView(
        id=row.id,
        hardware=row.hardware,
        status=device_status(row.state, step),
        presence=row.state,
        step=step.value,
        percent=reported.percent if reported else 0,
        ring=place[1] if place else None,
        rollout=place[0] if place else None,
        machine=facts.machine,
        agent=facts.agent,
        seen=None if row.state == ONLINE else row.last_seen,
        clock_ok=reported.clock_ok if reported else True,
        reason=reason_view(reported.reason) if reported else None,
        slots=tuple(
            ActiveView(
                slot=name,
                release=state.release,
                variant=state.variant,
                digest=state.digest,
                runtime=state.runtime,
                backend=state.backend,
                since=state.since,
                previous=state.previous,
            )
            for name, state in slots
        ),
        probes=tuple(probes),
        labels=dict(facts.labels),
        runtimes=dict(facts.runtimes),
    )


def slot_view(row: SlotRow, probes: ProbeSetRow | None) -> SlotView:
    """A slot with its newest ground-truth probe set."""
    contract = Contract.from_dict(row.contract, where=f"slot {row.name}: contract")
    return SlotView(
        name=row.name,
        labels={output.name: output.labels for output in contract.outputs},
        policy=probes.policy if probes else None,
        min_accuracy=probes.min_accuracy if probes else None,
        items=probes.items if probes else None,
    )


def rollout_view(row: RolloutRow, rings: Sequence[RingRow], members: Sequence[MemberRow]) -> RolloutView:
    """A rollout with its rings and their gates."""
    plan = plan_of(row)
    return RolloutView(
        id=row.id,
        release=row.release,
        slot=row.slot,
        state=row.state,
        previous=row.previous or None,
        reason=row.reason,
        created=row.created,
        ended=row.ended,
        rings=tuple(
            _ring(ring, ring_plan(plan, ring).soak, [m for m in members if m.ring == ring.idx])
            for ring in rings
        ),
    )


def _ring(row: RingRow, soak: float, members: Sequence[MemberRow]) -> RingView:
    counts = count(map(member_of, members))
    soaking = row.state == RingState.SOAKING.value and row.soaking_since
    return RingView(
        index=row.idx,
        name=row.name,
        state=row.state,
        members=len(members),
        good=counts.good,
        bad=counts.failed,
        back=sum(back_of(member).step.good for member in members),
        opened=row.opened or None,
        soak_until=row.soaking_since + soak if soaking else None,
        closed=row.closed or None,
        gates=_gates(row.judgement, row.looked),
    )


def _gates(judgement: Mapping[str, Any] | None, at: float) -> tuple[GateView, ...]:
    return tuple(
        GateView(
            name=gate["gate"],
            type=gate["type"],
            verdict=gate["verdict"],
            reason=gate["reason"] + (" (dry run)" if gate["dry_run"] else ""),
            n=gate["n"],
            effect=gate["effect"],
            lower=gate["interval"][0],
            upper=gate["interval"][1],
            limit=gate["limit"],
            at=at or None,
        )
        for gate in (judgement or {}).get("gates", ())
    )


def device_news(before: DeviceView | None, after: DeviceView, *, at: float) -> list[LogView]:
    """What happened to a device, in words."""
    if before is None:
        return []
    lines = []
    if before.presence != after.presence:
        tone = "good" if after.presence == "online" else "bad"
        lines.append(_line(at, after.id, f"{after.id} is {after.presence}", tone))
    releases = {slot.slot: slot.release for slot in before.slots}
    for slot in after.slots:
        if releases.get(slot.slot) != slot.release:
            was = f" (before: {releases[slot.slot]})" if slot.slot in releases else ""
            lines.append(_line(at, after.id, f"{after.id} serves {slot.release}{was}", "busy"))
    return lines


def step_news(row: StepRow) -> LogView | None:
    """A device has finished with a rollout, in words; None for the steps between."""
    step = MemberStep(row.step)
    if not step.terminal:
        return None
    why = f": {row.reason['text']}" if row.reason else ""
    back = " (taken back)" if row.back else ""
    text = f"{row.device} {row.step.replace('_', ' ')}{back}{why}"
    return _line(row.at, row.device, text, "bad" if step.bad else "good")


def probe_news(device: str, probe: ProbeView) -> LogView:
    """Probes were run on a device, in words."""
    right = probe.right.count("1")
    what = "ground-truth" if probe.probe == "truth" else "package"
    text = f"{device}: {probe.release}, {right} of {probe.n} {what} probes right, limit {probe.limit:g}"
    return _line(probe.at, device, text, "good" if probe.passed else "bad")


def rollout_news(before: RolloutView | None, after: RolloutView, *, at: float) -> list[LogView]:
    """What happened to a rollout and its rings, in words."""
    name = f"rollout {after.release}"
    if before is None:
        return [_line(at, None, f"{name} started", "busy")]
    lines = []
    known = {ring.index: ring.state for ring in before.rings}
    for ring in after.rings:
        state = known.get(ring.index)
        if state is not None and state != ring.state:
            text = f"{name}: ring {ring.name} {ring.state.replace('_', ' ')}"
            lines.append(_line(at, None, text, _tone(ring.state)))
    if before.state != after.state:
        why = f": {after.reason}" if after.reason else ""
        lines.append(_line(at, None, f"{name} {after.state.replace('_', ' ')}{why}", _tone(after.state)))
    return lines


def _tone(state: str) -> str:
    return "bad" if state in _BAD_STATES else "good" if state in _GOOD_STATES else "busy"


def _line(at: float, device: str | None, text: str, tone: str) -> LogView:
    return LogView(at=at, kind="device" if device else "rollout", device=device, text=text[:600], tone=tone)
