"""What operators order of a rollout: pause, resume, promote, abort, roll back. The caller commits.

Every order is checked against the state machine, audited, and then left to the reconciler, which
does the rest; an order that was given is carried out even when the service dies right after.
Starting one is `edgekit_fleet.rollout_start`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from edgekit.documents import Desired, Envelope, Reported, SlotDesire, TruthProbes
from edgekit.errors import RefusedError
from edgekit_fleet import audit
from edgekit_fleet.db.rollouts import MemberRow, RingRow, RolloutRow
from edgekit_fleet.db.tables import DesiredRow, DeviceRow
from edgekit_fleet.rollout.plan import Plan
from edgekit_fleet.rollout.states import MemberStep, RingState, RolloutState, check_move
from edgekit_fleet.rollouts import get_rollout, members_of, rings_of, touch


def pause(session: Session, rollout: str, *, actor: str, reason: str, now: float) -> RolloutRow:
    """Hold a running rollout: no further device is notified and no ring judged."""
    row = get_rollout(session, rollout)
    _move(session, row, RolloutState.PAUSED, actor=actor, verb="rollout.pause", reason=reason, now=now)
    row.pause = "manual"
    return row


def resume(session: Session, rollout: str, *, actor: str, now: float) -> RolloutRow:
    """Go on. A ring held by its gates soaks once more; a stalled ring waits once more.

    Raises:
        RefusedError: not paused; a failed ring; an approval that is wanted (`promote` gives it).
    """
    row = get_rollout(session, rollout)
    check_move(RolloutState(row.state), RolloutState.RUNNING, rollout=rollout)
    ring = rings_of(session, rollout)[row.ring]
    if row.pause == "approval" and not ring.approved:
        raise RefusedError(
            f"ring {ring.name} wants an approval",
            where=f"rollout {rollout}",
            remedy=f"edgekit rollout promote {rollout}",
            code="approval_wanted",
        )
    _refuse_failed(row, ring)
    _move(session, row, RolloutState.RUNNING, actor=actor, verb="rollout.resume", reason="", now=now)
    if row.pause == "gate":
        ring.soaking_since = now
    if row.pause == "stalled":
        ring.opened = now
    row.pause = ""
    return row


def promote(session: Session, rollout: str, *, actor: str, now: float) -> RolloutRow:
    """Approve the ring that waits for it, or let the present ring through unproven.

    The ring is recorded as inconclusive and promoted by `actor`, never as passed.

    Raises:
        RefusedError: the ring failed, or devices of it are still on their way.
    """
    row = get_rollout(session, rollout)
    if RolloutState(row.state) not in (RolloutState.RUNNING, RolloutState.PAUSED):
        check_move(RolloutState(row.state), RolloutState.RUNNING, rollout=rollout)
    ring = rings_of(session, rollout)[row.ring]
    _refuse_failed(row, ring)
    if ring.state in (RingState.PENDING.value, RingState.AWAITING_APPROVAL.value):
        ring.approved = True
    elif ring.state == RingState.SOAKING.value:
        ring.state, ring.closed, ring.verdict = RingState.INCONCLUSIVE.value, now, "inconclusive"
        ring.reason = f"promoted by {actor}; {ring.reason}".rstrip("; ")
        row.ring += 1
    else:
        raise RefusedError(
            f"devices of ring {ring.name} are still on their way",
            where=f"rollout {rollout}",
            remedy="wait, or pause it",
            code="bad_state",
        )
    before = row.state
    row.state, row.pause, row.reason = RolloutState.RUNNING.value, "", ""
    touch(row, now)
    _audit(session, row, before, actor=actor, verb="rollout.promote", now=now)
    return row


def _refuse_failed(row: RolloutRow, ring: RingRow) -> None:
    if ring.state == RingState.FAILED.value:
        raise RefusedError(
            f"ring {ring.name} failed: {ring.reason}",
            where=f"rollout {row.id}",
            remedy=f"edgekit rollout rollback {row.id}",
            code="ring_failed",
        )


def begin_rollback(
    session: Session, row: RolloutRow, *, actor: str, reason: str, now: float, ring: int | None = None
) -> None:
    """Send every device that got the release (of one ring, if given) back to what it had.

    Raises:
        RefusedError: nothing to take back in this state.
    """
    _move(
        session, row, RolloutState.ROLLING_BACK, actor=actor, verb="rollout.rollback", reason=reason, now=now
    )
    row.scope, row.pause, row.ended = "all" if ring is None else "ring", "", None
    for member in members_of(session, row.id, ring):
        if member.gen and member.back_step not in ("committed", "already_current"):
            member.back_step, member.back_gen = MemberStep.TARGETED.value, 0
            member.back_since, member.back_notified = now, 0.0
    _close_rings(session, row, now)


def abort(session: Session, row: RolloutRow, *, actor: str, reason: str, now: float) -> None:
    """Notify nobody further. Devices that have begun go on; what others were sent is taken back.

    Raises:
        RefusedError: not under way.
    """
    _move(session, row, RolloutState.ABORTED, actor=actor, verb="rollout.abort", reason=reason, now=now)
    row.ended, row.pause = now, ""
    _close_rings(session, row, now)
    for member in members_of(session, row.id):
        if member.step == MemberStep.NOTIFIED.value:
            member.back_step, member.back_gen = MemberStep.TARGETED.value, 0
            member.back_since, member.back_notified = now, 0.0


def _close_rings(session: Session, row: RolloutRow, now: float) -> None:
    for ring in rings_of(session, row.id):
        state = RingState(ring.state)
        if state in (RingState.PENDING, RingState.AWAITING_APPROVAL) or state.open:
            ring.state, ring.closed = RingState.CANCELLED.value, now


def _move(
    session: Session,
    row: RolloutRow,
    state: RolloutState,
    *,
    actor: str,
    verb: str,
    reason: str,
    now: float,
) -> None:
    check_move(RolloutState(row.state), state, rollout=row.id)
    before, row.state, row.reason = row.state, state.value, reason[:4096]
    touch(row, now)
    _audit(session, row, before, actor=actor, verb=verb, now=now)


def _audit(session: Session, row: RolloutRow, before: str, *, actor: str, verb: str, now: float) -> None:
    audit.record(
        session,
        at=now,
        actor=actor,
        verb=verb,
        subject=row.id,
        before={"state": before},
        after={"state": row.state, "reason": row.reason},
    )


def change_state(session: Session, row: RolloutRow, state: RolloutState, *, reason: str, now: float) -> None:
    """The service's own move, audited."""
    verb = f"rollout.{state.value}"
    _move(session, row, state, actor=audit.SERVICE, verb=verb, reason=reason, now=now)


def desire_of(row: RolloutRow, member: MemberRow, plan: Plan) -> SlotDesire:
    """What a member's slot shall run."""
    return SlotDesire(
        release=row.release,
        package=row.package,
        variant=member.variant,
        digest=member.digest,
        truth=TruthProbes.from_dict(row.truth) if row.truth else None,
        trial_seconds=plan.trial_seconds,
        allow_unverified=row.allow_unverified,
    )


def earlier_desire(session: Session, device: DeviceRow, slot: str) -> dict[str, Any] | None:
    """What the slot of a device runs now, as a desire to go back to; None when it runs nothing.

    What the device reports counts; what was last desired only where it never reported. Truth probes
    are left out and `allow_unverified` is set: going back must not depend on them.
    """
    if device.reported is not None:
        state = Reported.from_dict(device.reported).slots.get(slot)
        if state is None:
            return None
        desire = SlotDesire(
            release=state.release,
            package=state.package,
            variant=state.variant,
            digest=state.digest,
            allow_unverified=True,
        )
        return desire.to_dict()
    stored = session.get(DesiredRow, device.id)
    if stored is None:
        return None
    wanted = Desired.from_dict(Envelope.from_dict(stored.envelope).signed).slots.get(slot)
    if wanted is None:
        return None
    return SlotDesire(
        release=wanted.release,
        package=wanted.package,
        variant=wanted.variant,
        digest=wanted.digest,
        allow_unverified=True,
    ).to_dict()
