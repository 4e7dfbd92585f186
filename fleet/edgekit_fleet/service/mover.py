"""One step of one rollout, inside one write transaction: the pure core decides, this does.

Nothing here talks to a broker. Desired documents are issued (signed and stored) in the same
transaction as the step that asks for them; `edgekit_fleet.service.reconciler` publishes what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.documents import Reason, SlotDesire
from edgekit_fleet.db.rollouts import JudgementRow, MemberRow, RingRow, RolloutRow
from edgekit_fleet.db.tables import DeviceRow, ReleaseRow
from edgekit_fleet.desired import current_slots, issue
from edgekit_fleet.devices import facts_of
from edgekit_fleet.releases import INVALIDATED
from edgekit_fleet.ring_evidence import gather, subject_dict, subjects_of
from edgekit_fleet.rollout.counting import count
from edgekit_fleet.rollout.gates import Verdict
from edgekit_fleet.rollout.judge import Action, Judgement, Look, judge_ring
from edgekit_fleet.rollout.plan import Plan, RingPlan
from edgekit_fleet.rollout.progress import Need, need_of
from edgekit_fleet.rollout.rings import LATE_RING, Candidate, choose_members, within_budget
from edgekit_fleet.rollout.states import (
    Member,
    MemberStep,
    RingState,
    RolloutState,
    expire,
    next_attempt,
    notify,
    retry,
)
from edgekit_fleet.rollout_orders import abort, begin_rollback, change_state, desire_of, earlier_desire
from edgekit_fleet.rollout_start import Eligible, eligible_devices
from edgekit_fleet.rollouts import (
    BACK,
    LIVE,
    back_of,
    keep_back,
    keep_member,
    member_of,
    members_of,
    plan_of,
    ring_now,
    ring_plan,
    rings_of,
    touch,
)
from edgekit_fleet.telemetry import newest_id
from edgekit_fleet.trust.director import Director

_LOOK_EVERY = 1.0
_MINUTE = 60.0


@dataclass(kw_only=True)
class Mover:
    """Moves one rollout by one step.

    Args:
        session: a write session; the caller commits.
        director: signs desired documents.
        row: the rollout.
        now: seconds since the epoch, by the service's clock.
        tell: told of judgements, as JSON-ready facts; called before the commit.
    """

    session: Session
    director: Director
    row: RolloutRow
    now: float
    tell: Callable[[str, Mapping[str, Any]], None] = lambda kind, body: None
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self.plan = plan_of(self.row)

    def move(self) -> None:
        """Timers first, then what the rollout's state asks for."""
        self._timers()
        state = RolloutState(self.row.state)
        if state is RolloutState.RUNNING:
            self._run()
        if RolloutState(self.row.state) is RolloutState.ROLLING_BACK:
            self._roll_back()
        elif RolloutState(self.row.state) is RolloutState.ABORTED:
            self._send_back()

    # -- members -----------------------------------------------------------------------------

    def _timers(self) -> None:
        rolling_back = self.row.state == RolloutState.ROLLING_BACK.value
        for row in members_of(self.session, self.row.id):
            member = member_of(row)
            changed = expire(member, self.plan.timers, self.now)
            if not (rolling_back or row.back_step):
                changed = (
                    changed
                    or retry(member, retries=self.plan.retries, delay=self.plan.retry_delay, now=self.now)
                    or next_attempt(member, self.now)
                )
            if changed is not None:
                self._keep(row, changed)
            way_back = expire(back_of(row), self.plan.timers, self.now) if row.back_gen else None
            if way_back is not None:
                keep_back(self.session, row, way_back, now=self.now)
                touch(self.row, self.now)

    def _keep(self, row: MemberRow, member: Member) -> None:
        keep_member(self.session, row, member, now=self.now)
        touch(self.row, self.now)

    # -- a running rollout -------------------------------------------------------------------

    def _run(self) -> None:
        if self._invalidated(self.row.package):
            self._pause("invalidated", f"{self.row.release} was invalidated")
            return
        rings = rings_of(self.session, self.row.id)
        if self.row.ring >= len(rings):
            self._after_last_ring(len(rings))
            return
        ring = rings[self.row.ring]
        match self._tend(ring):
            case Need.ASK:
                ring.state = RingState.AWAITING_APPROVAL.value
                self._pause("approval", f"ring {ring.name} waits for approval")
            case Need.OPEN:
                self._open(ring, ring_plan(self.plan, ring))
            case Need.STALLED:
                self._pause("stalled", f"ring {ring.name}: none of its devices is online")
            case Need.NOTHING:
                self._next_ring()

    def _tend(self, ring: RingRow) -> Need:
        """Do what a ring needs while it is open; returns the need, for what else the caller does then."""
        plan, members = ring_plan(self.plan, ring), members_of(self.session, self.row.id, ring.idx)
        need = need_of(ring_now(ring), plan, map(member_of, members), self.plan.timers, self.now)
        match need:
            case Need.DEPLOY | Need.WATCH:
                self._notify(ring, plan, members)
                self._look(ring, plan, members)
            case Need.SOAK:
                ring.state, ring.soaking_since = RingState.SOAKING.value, self.now
                touch(self.row, self.now)
            case Need.JUDGE:
                self._judge(ring, plan)
        return need

    def _pause(self, why: str, reason: str) -> None:
        change_state(self.session, self.row, RolloutState.PAUSED, reason=reason, now=self.now)
        self.row.pause = why

    def _next_ring(self) -> None:
        self.row.ring += 1
        touch(self.row, self.now)

    def _open(self, ring: RingRow, plan: RingPlan) -> None:
        """Freeze the membership of a ring."""
        fitting, excluded = self._eligible()
        taken = {row.device for row in members_of(self.session, self.row.id)}
        chosen = choose_members(
            plan.select, [item.candidate for item in fitting], salt=self.row.salt, taken=taken
        )
        self._add_members(ring, fitting, chosen)
        ring.opened, ring.excluded = self.now, excluded
        touch(self.row, self.now)
        if chosen:
            ring.state = RingState.DEPLOYING.value
            return
        ring.state, ring.closed, ring.reason = RingState.SKIPPED.value, self.now, "no device matches it"
        self._next_ring()

    def _eligible(self) -> tuple[tuple[Eligible, ...], dict[str, str]]:
        return eligible_devices(
            self.session,
            slot=self.row.slot,
            release=self.row.release,
            table=self.row.table,
            allow_unverified=self.row.allow_unverified,
        )

    def _add_members(self, ring: RingRow, fitting: Sequence[Eligible], chosen: Sequence[str]) -> None:
        by_name = {item.candidate.device: item for item in fitting}
        for order, device in enumerate(chosen):
            item = by_name[device]
            self.session.add(
                MemberRow(
                    rollout=self.row.id,
                    device=device,
                    ring=ring.idx,
                    hardware=item.candidate.hardware,
                    position=order,
                    variant=item.entry.id,
                    digest=item.entry.digest,
                    step=MemberStep.TARGETED.value,
                    since=self.now,
                )
            )
        self.session.flush()

    def _notify(self, ring: RingRow, plan: RingPlan, members: Sequence[MemberRow]) -> None:
        """Send the release to those whose turn it is."""
        waiting = [row for row in members if row.step == MemberStep.TARGETED.value]
        if not waiting:
            return
        busy = self._busy_elsewhere({row.device for row in waiting})
        recent = sum(row.first > self.now - _MINUTE for row in members)
        limit = plan.rate_limit.per_minute
        changing = [
            row for row in members if member_of(row).changing and row.step != MemberStep.TARGETED.value
        ]
        picked = within_budget(
            [self._candidate(row) for row in waiting if row.device not in busy],
            [self._candidate(row) for row in changing],
            plan.disruption,
            max(0, limit - recent) if limit else None,
        )
        by_name = {row.device: row for row in waiting}
        for device in picked:
            self._send(by_name[device])

    def _candidate(self, row: MemberRow) -> Candidate:
        device = self.session.get_one(DeviceRow, row.device)
        return Candidate(device=row.device, facts=facts_of(device))

    def _busy_elsewhere(self, devices: set[str]) -> set[str]:
        """Devices in the middle of another slot's rollout: one change at a time."""
        query = (
            select(MemberRow)
            .join(RolloutRow, RolloutRow.id == MemberRow.rollout)
            .where(
                MemberRow.rollout != self.row.id, RolloutRow.state.in_(LIVE), MemberRow.device.in_(devices)
            )
        )
        return {
            row.device
            for row in self.session.scalars(query)
            if (row.gen and member_of(row).changing) or (row.back_gen and back_of(row).changing)
        }

    def _send(self, row: MemberRow) -> None:
        device = self.session.get_one(DeviceRow, row.device)
        member = member_of(row)
        if not member.gen:
            row.before = earlier_desire(self.session, device, self.row.slot)
        gen = self._issue(device, desire_of(self.row, row, self.plan), self.row.id, member.attempt)
        self._keep(row, notify(member, gen=gen, online=device.state == "online", now=self.now))

    def _issue(self, device: DeviceRow, desire: SlotDesire | None, deployment: str, attempt: int) -> int:
        slots = {**current_slots(self.session, device.id)}
        slots.pop(self.row.slot, None)
        if desire is not None:
            slots[self.row.slot] = desire
        issue(
            self.session,
            self.director,
            device=device.id,
            deployment=deployment,
            slots=slots,
            now=self.now,
            attempt=attempt,
        )
        return device.gen

    def _invalidated(self, package: str) -> bool:
        row = self.session.scalars(select(ReleaseRow).where(ReleaseRow.digest == package)).first()
        return row is not None and row.state == INVALIDATED

    # -- judging -----------------------------------------------------------------------------

    def _look(self, ring: RingRow, plan: RingPlan, members: Sequence[MemberRow]) -> None:
        """An interim look, when there is something new to see."""
        counts = count(map(member_of, members))
        every = _LOOK_EVERY * max(1.0, counts.members / 50)  # a look costs about as much as its ring is large
        if not plan.early_stop or not counts.counted or 0 <= self.now - ring.looked < every:
            return
        mark = newest_id(self.session) * 100_003 + counts.finished
        if mark == ring.looked_at:
            return
        ring.looked_at = mark
        judgement, subjects, cut = self._evaluate(ring, plan, Look.INTERIM)
        if judgement.action is not Action.WAIT:
            self._act(ring, judgement, subjects, cut)

    def _judge(self, ring: RingRow, plan: RingPlan) -> None:
        self._act(ring, *self._evaluate(ring, plan, Look.FINAL))

    def _evaluate(
        self, ring: RingRow, plan: RingPlan, look: Look
    ) -> tuple[Judgement, list[dict[str, Any]], int]:
        subjects = subjects_of(self.session, self.row, ring)
        cut = newest_id(self.session)
        evidence = gather(self.session, self.row, plan, subjects, at=self.now, cut=cut)
        judgement = judge_ring(plan, evidence, look)
        ring.judgement, ring.looked = judgement.to_dict(), self.now
        touch(self.row, self.now)
        return judgement, [subject_dict(item) for item in subjects], cut

    def _act(self, ring: RingRow, judgement: Judgement, subjects: list[dict[str, Any]], cut: int) -> None:
        """Record a judgement and do what follows from it."""
        self._record(ring, judgement, subjects, cut)
        self._follow(ring, judgement)

    def _record(self, ring: RingRow, judgement: Judgement, subjects: list[dict[str, Any]], cut: int) -> None:
        self.session.add(
            JudgementRow(
                rollout=self.row.id,
                ring=ring.idx,
                at=self.now,
                cut=cut,
                subjects=subjects,
                judgement=judgement.to_dict(),
            )
        )
        ring.verdict, ring.reason = judgement.verdict.value, judgement.reason[:4096]
        self.tell("judgement", {"rollout": self.row.id, "ring": ring.name, **judgement.to_dict()})
        if judgement.verdict is Verdict.FAIL:
            ring.state, ring.closed = RingState.FAILED.value, self.now

    def _follow(self, ring: RingRow, judgement: Judgement) -> None:
        reason = f"ring {ring.name}: {judgement.reason}"
        match judgement.action:
            case Action.PROMOTE:
                self._close(ring, judgement)
                self._next_ring()
            case Action.PAUSE:
                self._pause("gate", reason)
            case Action.ABORT:
                abort(self.session, self.row, actor="service", reason=reason, now=self.now)
            case Action.ROLLBACK_RING:
                self._begin_rollback(reason, ring.idx)
            case Action.ROLLBACK_ALL:
                self._begin_rollback(reason, None)
            case _:
                return

    def _close(self, ring: RingRow, judgement: Judgement) -> None:
        passed = judgement.verdict is Verdict.PASS
        ring.state = RingState.PASSED.value if passed else RingState.INCONCLUSIVE.value
        ring.closed = self.now

    def _begin_rollback(self, reason: str, ring: int | None) -> None:
        begin_rollback(self.session, self.row, actor="service", reason=reason, now=self.now, ring=ring)

    # -- the way back ------------------------------------------------------------------------

    def _roll_back(self) -> None:
        self._send_back()
        ways = [back_of(row) for row in members_of(self.session, self.row.id) if row.back_step]
        if any(way.changing or way.step is MemberStep.TARGETED for way in ways):
            return
        bad = sorted(way.device for way in ways if way.step.bad)
        away = sorted(way.device for way in ways if way.step is MemberStep.NOTIFIED)
        state = RolloutState.ROLLBACK_FAILED if bad else RolloutState.ROLLED_BACK
        notes = [f"not back: {', '.join(bad[:20])}"] if bad else []
        notes += [f"offline, will go back when they come: {', '.join(away[:20])}"] if away else []
        reason = "; ".join([self.row.reason, *notes])
        change_state(self.session, self.row, state, reason=reason, now=self.now)
        self.row.ended = self.now

    def _send_back(self) -> None:
        for row in members_of(self.session, self.row.id):
            if row.back_step == MemberStep.TARGETED.value:
                self._send_one_back(row)

    def _send_one_back(self, row: MemberRow) -> None:
        way = back_of(row)
        earlier = SlotDesire.from_dict(row.before) if row.before is not None else None
        if earlier is not None and self._invalidated(earlier.package):
            reason = Reason(
                code="invalidated", text=f"{earlier.release} was invalidated and cannot be installed again"
            )
            keep_back(self.session, row, _failed(way, reason, self.now), now=self.now)
        else:
            device = self.session.get_one(DeviceRow, row.device)
            gen = self._issue(device, earlier, self.row.id + BACK, 1)
            online = device.state == "online"
            keep_back(self.session, row, notify(way, gen=gen, online=online, now=self.now), now=self.now)
            if not member_of(row).step.terminal:
                self._keep(row, replace(member_of(row), step=MemberStep.SUPERSEDED, since=self.now))
        touch(self.row, self.now)

    # -- the end -----------------------------------------------------------------------------

    def _after_last_ring(self, rings: int) -> None:
        """Late arrivals get a ring of their own; then the rollout is complete."""
        done = [ring for ring in rings_of(self.session, self.row.id) if ring.name == LATE_RING]
        arrivals = self._arrivals()
        if arrivals and not done:
            self._late_ring(rings, arrivals)
            return
        members = [member_of(row) for row in members_of(self.session, self.row.id)]
        if not members:
            self._hold_untaken()
            return
        nobody = "" if any(member.step.good for member in members) else "no device was there to take it"
        change_state(self.session, self.row, RolloutState.COMPLETED, reason=nobody, now=self.now)
        self.row.ended = self.now

    def _hold_untaken(self) -> None:
        """No ring had a device: nothing is proven, so whoever enrols later must not get it ungated.

        The rings start over when a person resumes.
        """
        excluded: dict[str, str] = {}
        for ring in rings_of(self.session, self.row.id):
            excluded |= ring.excluded
            ring.state, ring.opened, ring.closed, ring.reason = RingState.PENDING.value, 0.0, 0.0, ""
        shown = "; ".join(f"{device}: {why}" for device, why in sorted(excluded.items())[:3])
        left = f" ({len(excluded)} left out: {shown})" if excluded else ""
        self.row.ring = 0
        self._pause("stalled", f"no device of any ring can take it{left}")

    def _arrivals(self) -> tuple[Eligible, ...]:
        """Eligible devices that some ring of the plan selects and that are not members yet."""
        members = {row.device for row in members_of(self.session, self.row.id)}
        fitting, _ = self._eligible()
        fleet = [item.candidate for item in fitting]
        wanted = {
            name
            for ring in self.plan.rings
            for name in choose_members(ring.select, fleet, salt=self.row.salt, taken=members)
        }
        return tuple(item for item in fitting if item.candidate.device in wanted)

    def _late_ring(self, index: int, arrivals: Sequence[Eligible]) -> RingRow:
        ring = RingRow(
            rollout=self.row.id,
            idx=index,
            name=LATE_RING,
            state=RingState.DEPLOYING.value,
            opened=self.now,
            excluded={},
        )
        self.session.add(ring)
        self._add_members(ring, arrivals, [item.candidate.device for item in arrivals])
        touch(self.row, self.now)
        return ring


def _failed(way: Member, reason: Reason, now: float) -> Member:
    return replace(way, step=MemberStep.FAILED, since=now, first=now, notified=now, reason=reason)
