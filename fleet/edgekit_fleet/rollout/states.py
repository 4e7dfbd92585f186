"""State machines of rollout, ring and member, with the service's own timers. Pure; time is passed in.

A *member* is one device in one rollout. Its step is what the device reported last, or one of the
service's own: ``targeted`` (waits its turn), ``notified`` (the desired document went out),
``timed_out`` (a timer of the service ran out; counts as a failure). Terminal steps are sticky within
an attempt: what arrives later is kept as `late_step`, so that a device that comes back after its
time is recorded and can still be rolled back, while the judgement stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from edgekit.documents import DeviceStep, Reason
from edgekit.errors import RefusedError
from edgekit_fleet.rollout.plan import Timers


class RolloutState(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    SUPERSEDED = "superseded"

    @property
    def live(self) -> bool:
        """Whether the reconciler still moves it."""
        return self in (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK)


class RingState(StrEnum):
    """Where a ring stands."""

    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    DEPLOYING = "deploying"
    SOAKING = "soaking"
    PASSED = "passed"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Whether its membership is frozen and its devices are on their way or watched."""
        return self in (RingState.DEPLOYING, RingState.SOAKING)

    @property
    def done(self) -> bool:
        """Whether the next ring may be looked at (an inconclusive one was let through)."""
        return self in (RingState.PASSED, RingState.INCONCLUSIVE, RingState.SKIPPED)


class MemberStep(StrEnum):
    """Steps of a member: the service's own and the device's (`DeviceStep`, same values)."""

    TARGETED = "targeted"
    NOTIFIED = "notified"
    TIMED_OUT = "timed_out"
    IDLE = DeviceStep.IDLE.value
    ACCEPTED = DeviceStep.ACCEPTED.value
    DOWNLOADING = DeviceStep.DOWNLOADING.value
    VERIFYING = DeviceStep.VERIFYING.value
    PREPARING = DeviceStep.PREPARING.value
    PROBING = DeviceStep.PROBING.value
    TRIAL = DeviceStep.TRIAL.value
    COMMITTED = DeviceStep.COMMITTED.value
    CURRENT = DeviceStep.CURRENT.value
    REJECTED = DeviceStep.REJECTED.value
    FAILED = DeviceStep.FAILED.value
    REVERTED = DeviceStep.REVERTED.value
    SUPERSEDED = DeviceStep.SUPERSEDED.value

    @property
    def good(self) -> bool:
        """Whether the device runs what was asked for."""
        return self in (MemberStep.COMMITTED, MemberStep.CURRENT)

    @property
    def bad(self) -> bool:
        """Whether it counts as a failure."""
        return self in (
            MemberStep.TIMED_OUT,
            MemberStep.REJECTED,
            MemberStep.FAILED,
            MemberStep.REVERTED,
        )

    @property
    def terminal(self) -> bool:
        """Whether this attempt is over."""
        return self.good or self.bad or self is MemberStep.SUPERSEDED


ROLLOUT_MOVES: Mapping[RolloutState, frozenset[RolloutState]] = {
    RolloutState.RUNNING: frozenset(
        {
            RolloutState.PAUSED,
            RolloutState.COMPLETED,
            RolloutState.ABORTED,
            RolloutState.ROLLING_BACK,
            RolloutState.SUPERSEDED,
        }
    ),
    RolloutState.PAUSED: frozenset(
        {
            RolloutState.RUNNING,
            RolloutState.ABORTED,
            RolloutState.ROLLING_BACK,
            RolloutState.SUPERSEDED,
        }
    ),
    RolloutState.ROLLING_BACK: frozenset(
        {RolloutState.ROLLED_BACK, RolloutState.ROLLBACK_FAILED, RolloutState.PAUSED}
    ),
    RolloutState.COMPLETED: frozenset({RolloutState.ROLLING_BACK, RolloutState.SUPERSEDED}),
    RolloutState.ABORTED: frozenset({RolloutState.ROLLING_BACK, RolloutState.SUPERSEDED}),
    RolloutState.ROLLBACK_FAILED: frozenset({RolloutState.ROLLING_BACK, RolloutState.SUPERSEDED}),
    RolloutState.ROLLED_BACK: frozenset(),
    RolloutState.SUPERSEDED: frozenset(),
}


def check_move(now: RolloutState, then: RolloutState, *, rollout: str) -> None:
    """Refuse a move the state machine does not have.

    Raises:
        RefusedError: code ``bad_state``.
    """
    if then not in ROLLOUT_MOVES[now]:
        raise RefusedError(
            f"it is {now.value} and cannot become {then.value}",
            where=f"rollout {rollout}",
            code="bad_state",
        )


@dataclass(frozen=True, kw_only=True)
class Member:
    """One device in one rollout.

    `since` is when the service learned of the step, `first` when the desired document first went out
    (or 0), `notified` when that happened with the device online or it first answered (0: the device
    is offline and stands in no denominator), `gen` the generation of its desired document, `retry_at`
    when the next attempt is due (0: none).
    """

    device: str
    hardware: str
    ring: int
    step: MemberStep = MemberStep.TARGETED
    since: float = 0.0
    first: float = 0.0
    notified: float = 0.0
    attempt: int = 1
    gen: int = 0
    reason: Reason | None = None
    late_step: MemberStep | None = None
    retry_at: float = 0.0

    @property
    def counted(self) -> bool:
        """Whether it stands in the denominators."""
        return self.notified > 0 and self.step is not MemberStep.SUPERSEDED

    @property
    def changing(self) -> bool:
        """Whether it is in the middle of an update that it knows of."""
        return self.counted and not self.step.terminal

    @property
    def got_it(self) -> bool:
        """Whether the device may have, or may yet get, the new version: what a rollback undoes."""
        return self.gen > 0


def notify(member: Member, *, gen: int, online: bool, now: float) -> Member:
    """The desired document with `gen` goes out."""
    return replace(
        member,
        step=MemberStep.NOTIFIED,
        since=now,
        first=member.first or now,
        notified=member.notified or (now if online else 0.0),
        gen=gen,
        reason=None,
        retry_at=0.0,
    )


def heard(
    member: Member, *, attempt: int, step: DeviceStep, reason: Reason | None, now: float
) -> Member | None:
    """The member after a report of the device; None when the report changes nothing.

    Reports of an earlier attempt are history. After a terminal step of this attempt only `late_step`
    follows, and only after ``timed_out``.
    """
    if attempt != member.attempt or step is DeviceStep.IDLE or not member.gen:
        return None
    new = MemberStep(step.value)
    if member.step.terminal:
        late = member.step is MemberStep.TIMED_OUT and member.late_step is not new
        return replace(member, late_step=new, reason=reason or member.reason) if late else None
    if new is member.step:
        return None
    return replace(member, step=new, since=now, notified=member.notified or now, reason=reason)


def came_online(member: Member, now: float) -> Member | None:
    """A device that was offline when it was notified is there: its timers start, it counts."""
    if member.step is not MemberStep.NOTIFIED or member.notified:
        return None
    return replace(member, notified=now, since=now)


def expire(member: Member, timers: Timers, now: float) -> Member | None:
    """The member timed out, or None while it is in time (or waits, or is done, or is offline)."""
    if not member.changing or member.step is MemberStep.TARGETED:
        return None
    allowed = timers.steps.get(member.step.value, timers.whole)
    if now - member.since > allowed:
        timer = member.step.value
    elif now - member.notified > timers.whole:
        timer, allowed = "whole", timers.whole
    else:
        return None
    reason = Reason(
        code=f"timer_{timer}",
        text=f"{member.step.value} for more than {allowed:g} s"
        if timer != "whole"
        else f"not finished after {allowed:g} s",
    )
    return replace(member, step=MemberStep.TIMED_OUT, since=now, reason=reason)


def retry(member: Member, *, retries: int, delay: float, now: float) -> Member | None:
    """Arrange another attempt after a failure the device calls retryable; None when there is none."""
    may = member.step is MemberStep.FAILED and member.reason is not None and member.reason.retryable
    if not may or member.retry_at or member.attempt > retries:
        return None
    return replace(member, retry_at=now + delay * 2 ** (member.attempt - 1))


def next_attempt(member: Member, now: float) -> Member | None:
    """The member, targeted anew, once its retry is due."""
    if not member.retry_at or now < member.retry_at:
        return None
    return replace(
        member,
        step=MemberStep.TARGETED,
        since=now,
        attempt=member.attempt + 1,
        retry_at=0.0,
        late_step=None,
    )
