"""The late ring of a completed rollout: devices that came to exist since get the release, behind its gates.

The plan of the last ring holds, with two differences that come from when it happens. The ring is never
full: whoever arrives opens it again, and it is judged on all its devices. And what it shows is about
the latecomers: a FAIL takes back what *they* were given (`pause` and `abort` leave it with them), gives it to
nobody who comes later, and leaves the rings that passed alone. Taking back the whole rollout is a
person's order.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit_fleet import audit
from edgekit_fleet.db.rollouts import RingRow
from edgekit_fleet.rollout.gates import Verdict
from edgekit_fleet.rollout.judge import Action, Judgement
from edgekit_fleet.rollout.rings import LATE_RING
from edgekit_fleet.rollout.states import MemberStep, RingState, RolloutState
from edgekit_fleet.rollouts import members_of, rings_of, touch
from edgekit_fleet.service.mover import Mover


@dataclass(kw_only=True)
class LateMover(Mover):
    """Moves the late ring of one completed rollout by one step; arguments as `Mover`."""

    def adopt(self) -> None:
        """Take in who arrived, bring them the release, watch their timers, judge them; nothing once the
        rollout is not completed any more."""
        if self.row.state != RolloutState.COMPLETED.value:
            return
        self._timers()
        self._send_back()
        rings = rings_of(self.session, self.row.id)
        ring = next((item for item in rings if item.name == LATE_RING), None)
        if ring is None or ring.state != RingState.FAILED.value:
            ring = self._take_in(ring, len(rings))
        if ring is not None and RingState(ring.state).open:
            self._tend(ring)

    def _take_in(self, ring: RingRow | None, rings: int) -> RingRow | None:
        arrivals = () if self._invalidated(self.row.package) else self._arrivals()
        if not arrivals:
            return ring
        if ring is None:
            return self._late_ring(rings, arrivals)
        self._add_members(ring, arrivals, [item.candidate.device for item in arrivals])
        if not RingState(ring.state).open:
            ring.opened, ring.closed, ring.verdict, ring.reason = self.now, 0.0, "", ""
        ring.state, ring.soaking_since = RingState.DEPLOYING.value, 0.0
        touch(self.row, self.now)
        return ring

    def _follow(self, ring: RingRow, judgement: Judgement) -> None:
        if judgement.verdict is not Verdict.FAIL:
            self._close(ring, judgement)
            return
        back = judgement.action in (Action.ROLLBACK_RING, Action.ROLLBACK_ALL)
        if back:
            self._take_back(ring)
        what = "they go back" if back else "they keep it"
        self.row.reason = f"late arrivals failed, {what}, nobody further gets it: {judgement.reason}"[:4096]
        audit.record(
            self.session,
            at=self.now,
            actor=audit.SERVICE,
            verb="rollout.late_failed",
            subject=self.row.id,
            after={"state": self.row.state, "reason": self.row.reason},
        )

    def _take_back(self, ring: RingRow) -> None:
        for member in members_of(self.session, self.row.id, ring.idx):
            if member.gen and not member.back_step:
                member.back_step, member.back_gen = MemberStep.TARGETED.value, 0
                member.back_since, member.back_notified = self.now, 0.0
