"""Rollouts as rows: look-ups, rows to the pure core's values and back. The caller commits.

Moving them on is `edgekit_fleet.service.reconciler`'s business, what operators ask for is in
`edgekit_fleet.rollout_start` and `edgekit_fleet.rollout_orders`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.documents import Reason
from edgekit_fleet.db.rollouts import MemberRow, RingRow, RolloutRow, StepRow
from edgekit_fleet.errors import UnknownNameError
from edgekit_fleet.rollout.plan import Plan, RingPlan, plan_from_dict
from edgekit_fleet.rollout.progress import RingNow
from edgekit_fleet.rollout.rings import LATE_RING
from edgekit_fleet.rollout.states import Member, MemberStep, RingState, RolloutState

BACK = "-back"
LIVE = tuple(state.value for state in RolloutState if state.live)


def get_rollout(session: Session, rollout: str) -> RolloutRow:
    """A rollout.

    Raises:
        UnknownNameError: none of that id, with the nearest ids.
    """
    row = session.get(RolloutRow, rollout)
    if row is None:
        raise UnknownNameError.of("rollout", rollout, session.scalars(select(RolloutRow.id)))
    return row


def list_rollouts(session: Session, *, slot: str | None = None, limit: int = 200) -> Sequence[RolloutRow]:
    """Rollouts, newest first."""
    query = select(RolloutRow).order_by(RolloutRow.created.desc(), RolloutRow.id.desc()).limit(limit)
    return session.scalars(query.where(RolloutRow.slot == slot) if slot else query).all()


def live_rollouts(session: Session) -> Sequence[RolloutRow]:
    """Rollouts the reconciler moves, oldest first."""
    query = select(RolloutRow).where(RolloutRow.state.in_(LIVE)).order_by(RolloutRow.created)
    return session.scalars(query).all()


def rings_of(session: Session, rollout: str) -> Sequence[RingRow]:
    """Its rings in order."""
    return session.scalars(select(RingRow).where(RingRow.rollout == rollout).order_by(RingRow.idx)).all()


def members_of(session: Session, rollout: str, ring: int | None = None) -> Sequence[MemberRow]:
    """Its devices, or those of one ring, in the order in which they are notified."""
    query = (
        select(MemberRow)
        .where(MemberRow.rollout == rollout)
        .order_by(MemberRow.ring, MemberRow.position, MemberRow.device)
    )
    return session.scalars(query.where(MemberRow.ring == ring) if ring is not None else query).all()


def steps_of(session: Session, rollout: str, device: str | None = None) -> Sequence[StepRow]:
    """The history of its devices, oldest first."""
    query = select(StepRow).where(StepRow.rollout == rollout).order_by(StepRow.id)
    return session.scalars(query.where(StepRow.device == device) if device else query).all()


def plan_of(row: RolloutRow) -> Plan:
    """Its plan."""
    return plan_from_dict(row.plan, where=f"rollout {row.id}: plan")


def ring_plan(plan: Plan, ring: RingRow) -> RingPlan:
    """The plan of a ring; late arrivals go by the last ring's."""
    return plan.rings[min(ring.idx, len(plan.rings) - 1)] if ring.name == LATE_RING else plan.rings[ring.idx]


def ring_now(row: RingRow) -> RingNow:
    """The ring as the pure core sees it."""
    return RingNow(
        state=RingState(row.state), opened=row.opened, soaking_since=row.soaking_since, approved=row.approved
    )


def member_of(row: MemberRow) -> Member:
    """The member as the pure core sees it."""
    return Member(
        device=row.device,
        hardware=row.hardware,
        ring=row.ring,
        step=MemberStep(row.step),
        since=row.since,
        first=row.first,
        notified=row.notified,
        attempt=row.attempt,
        gen=row.gen,
        reason=_reason(row.reason),
        late_step=MemberStep(row.late_step) if row.late_step else None,
        retry_at=row.retry_at,
    )


def back_of(row: MemberRow) -> Member:
    """The member's way back as the pure core sees it: another deployment of the same machine."""
    return Member(
        device=row.device,
        hardware=row.hardware,
        ring=row.ring,
        step=MemberStep(row.back_step or MemberStep.TARGETED.value),
        since=row.back_since,
        first=row.back_since,
        notified=row.back_notified,
        gen=row.back_gen,
        reason=_reason(row.back_reason),
    )


def keep_member(session: Session, row: MemberRow, member: Member, *, now: float) -> None:
    """Store a member's new state, and the step in its history."""
    if (member.step.value, member.attempt) != (row.step, row.attempt):
        _history(session, row, member.step.value, member, now=now)
    elif member.late_step and member.late_step.value != row.late_step:
        _history(session, row, member.late_step.value, member, now=now, late=True)
    row.step, row.since, row.first, row.notified = (
        member.step.value,
        member.since,
        member.first,
        member.notified,
    )
    row.attempt, row.gen, row.retry_at = member.attempt, member.gen, member.retry_at
    row.late_step = member.late_step.value if member.late_step else ""
    row.reason = reason_dict(member.reason)


def keep_back(session: Session, row: MemberRow, member: Member, *, now: float) -> None:
    """Store a member's new state on its way back, and the step in its history."""
    if member.step.value != row.back_step:
        _history(session, row, member.step.value, member, now=now, back=True)
    row.back_step, row.back_since = member.step.value, member.since
    row.back_notified, row.back_gen = member.notified, member.gen
    row.back_reason = reason_dict(member.reason)


def _history(
    session: Session,
    row: MemberRow,
    step: str,
    member: Member,
    *,
    now: float,
    back: bool = False,
    late: bool = False,
) -> None:
    session.add(
        StepRow(
            rollout=row.rollout,
            device=row.device,
            attempt=member.attempt,
            step=step,
            back=back,
            late=late,
            at=now,
            reason=reason_dict(member.reason),
        )
    )


def touch(row: RolloutRow, now: float) -> None:
    """Note that something people can see has changed."""
    row.revision += 1
    row.updated = now


def reason_dict(reason: Reason | None) -> dict[str, Any] | None:
    """A reason as it is stored and shown."""
    return (
        {"code": reason.code, "text": reason.text, "retryable": reason.retryable}
        if reason is not None
        else None
    )


def _reason(value: Mapping[str, Any] | None) -> Reason | None:
    return Reason.from_dict(value) if value is not None else None
