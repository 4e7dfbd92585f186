"""The counting rules: who stands in a ring's numerator and denominator.

1. The denominator is the notified devices: the desired document went out while the device was
   online, or the device has answered it since.
2. A device that was offline when its turn came is excluded until it answers; it keeps its desired
   document and joins late.
3. ``timed_out`` is a failure. A late report is recorded beside it and changes no count.
4. ``failed``, ``reverted`` and ``rejected`` are failures; a failure with a retry arranged is pending.
5. ``already_current`` is good: the device runs exactly the bytes asked for.
6. ``superseded`` devices (pinned, retired, taken by another rollout) leave the denominator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from edgekit_fleet.rollout.states import Member, MemberStep


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A ring's devices: `members` is all of them, `counted` the denominator."""

    members: int = 0
    counted: int = 0
    waiting: int = 0
    offline: int = 0
    pending: int = 0
    good: int = 0
    failed: int = 0
    timed_out: int = 0
    late: int = 0

    @property
    def finished(self) -> int:
        """Devices with an outcome."""
        return self.good + self.failed

    def to_dict(self) -> dict[str, int]:
        """JSON-ready form."""
        return {**asdict(self), "finished": self.finished}


def is_good(member: Member) -> bool:
    """Whether it counts as a success."""
    return member.counted and member.step.good


def is_failed(member: Member) -> bool:
    """Whether it counts as a failure."""
    return member.counted and member.step.bad and not member.retry_at


def is_pending(member: Member) -> bool:
    """Whether its outcome is still open."""
    return member.counted and not is_good(member) and not is_failed(member)


def count(members: Iterable[Member]) -> Counts:
    """Count a ring's members."""
    every = tuple(members)
    return Counts(
        members=len(every),
        counted=sum(m.counted for m in every),
        waiting=sum(m.step is MemberStep.TARGETED for m in every),
        offline=sum(m.step is MemberStep.NOTIFIED and not m.notified for m in every),
        pending=sum(is_pending(m) for m in every),
        good=sum(map(is_good, every)),
        failed=sum(map(is_failed, every)),
        timed_out=sum(m.counted and m.step is MemberStep.TIMED_OUT for m in every),
        late=sum(m.late_step is not None for m in every),
    )
