"""What a ring needs next, from its members alone. Pure; time is passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edgekit_fleet.rollout.counting import Counts, count
from edgekit_fleet.rollout.plan import RingPlan, Timers
from edgekit_fleet.rollout.states import Member, RingState

SETTLE = 5.0


class Need(StrEnum):
    """What the reconciler does for a ring."""

    OPEN = "open"
    ASK = "ask"
    DEPLOY = "deploy"
    SOAK = "soak"
    WATCH = "watch"
    JUDGE = "judge"
    STALLED = "stalled"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class RingNow:
    """A ring as it stands; times are the service's, 0 where it has not happened."""

    state: RingState
    opened: float = 0.0
    soaking_since: float = 0.0
    approved: bool = False


def need_of(ring: RingNow, plan: RingPlan, members: Iterable[Member], timers: Timers, now: float) -> Need:
    """What this ring needs now.

    A ring none of whose devices is online stalls after the whole timer instead of letting the next
    ring go without a canary. A ring on which nothing good is left to watch is judged after
    `SETTLE` seconds, in which the last reports arrive, and not after the whole soak.
    """
    counts = count(members)
    if ring.state in (RingState.PENDING, RingState.AWAITING_APPROVAL):
        return Need.ASK if plan.approval and not ring.approved else Need.OPEN
    if ring.state is RingState.DEPLOYING:
        return _deploying(ring, counts, timers, now)
    if ring.state is RingState.SOAKING:
        if counts.pending or counts.waiting:
            return Need.WATCH
        soak = plan.soak if counts.good else min(plan.soak, SETTLE)
        return Need.JUDGE if now - ring.soaking_since >= soak else Need.WATCH
    return Need.NOTHING


def _deploying(ring: RingNow, counts: Counts, timers: Timers, now: float) -> Need:
    if counts.waiting or counts.pending:
        return Need.DEPLOY
    if counts.counted:
        return Need.SOAK
    return Need.STALLED if now - ring.opened > timers.whole else Need.DEPLOY
