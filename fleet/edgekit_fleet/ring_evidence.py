"""What a ring is judged on, gathered from SQL; the same for a judgement and for its replay.

A judgement stores its `Subject`s (the devices as they stood) and the last telemetry id it looked at,
so that `gather` gives the same evidence for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.documents import Reported
from edgekit.package import Distribution
from edgekit_fleet.db.rollouts import MemberRow, RingRow, RolloutRow
from edgekit_fleet.db.tables import DeviceRow
from edgekit_fleet.rollout.counting import is_failed, is_good
from edgekit_fleet.rollout.gates import Arm, DeviceEvidence, Evidence
from edgekit_fleet.rollout.plan import RingPlan
from edgekit_fleet.rollouts import member_of, members_of
from edgekit_fleet.telemetry import aggregate, truth_reports, windows_between

LOOK_BACK = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A device as it stood at a judgement. `digest` is the candidate's (for a control: what it runs),
    `before` the incumbent's or "", `since` when the release went out to it."""

    device: str
    hardware: str
    arm: str
    counted: bool
    good: bool
    failed: bool
    reason: str
    variant: str
    digest: str
    before: str
    since: float


def subjects_of(session: Session, rollout: RolloutRow, ring: RingRow) -> tuple[Subject, ...]:
    """The ring's members, and as controls the devices that run the slot and were not offered the release."""
    members = members_of(session, rollout.id)
    offered = {row.device for row in members if row.gen}
    canaries = [_canary(row) for row in members if row.ring == ring.idx]
    rows = session.scalars(select(DeviceRow).order_by(DeviceRow.id))
    controls = (_control(row, rollout, ring) for row in rows if row.id not in offered)
    return (*canaries, *(item for item in controls if item is not None))


def _canary(row: MemberRow) -> Subject:
    member = member_of(row)
    return Subject(
        device=row.device,
        hardware=row.hardware,
        arm=Arm.CANARY.value,
        counted=member.counted,
        good=is_good(member),
        failed=is_failed(member),
        reason=f"{row.step}: {member.reason.text}"[:300] if member.reason else row.step,
        variant=row.variant,
        digest=row.digest,
        before=str((row.before or {}).get("digest", "")),
        since=row.first,
    )


def _control(row: DeviceRow, rollout: RolloutRow, ring: RingRow) -> Subject | None:
    if row.reported is None:
        return None
    active = Reported.from_dict(row.reported).slots.get(rollout.slot)
    if active is None or active.release == rollout.release:
        return None
    return Subject(
        device=row.id,
        hardware=row.hardware,
        arm=Arm.CONTROL.value,
        counted=False,
        good=False,
        failed=False,
        reason="",
        variant=active.variant,
        digest=active.digest,
        before="",
        since=ring.opened,
    )


def gather(
    session: Session,
    rollout: RolloutRow,
    plan: RingPlan,
    subjects: Sequence[Subject],
    *,
    at: float,
    cut: int,
) -> Evidence:
    """The evidence as it was at time `at`, from telemetry stored up to id `cut`."""
    windows = windows_between(
        session,
        slot=rollout.slot,
        since=min((subject.since for subject in subjects if subject.since), default=at) - LOOK_BACK,
        until=at,
        cut=cut,
        devices=[subject.device for subject in subjects],
    )
    truth = truth_reports(session, slot=rollout.slot, deployment=rollout.id, cut=cut)

    def evidence_of(subject: Subject) -> DeviceEvidence:
        own = windows.get(subject.device, [])
        canary = subject.arm == Arm.CANARY.value
        report = truth.get(subject.device) if canary else None
        started = subject.since or at
        # Windows sent late still name their variant; only equal variants must be told apart by time.
        incumbent_until = at if subject.before != subject.digest else started
        return DeviceEvidence(
            device=subject.device,
            hardware=subject.hardware,
            arm=Arm(subject.arm),
            counted=subject.counted,
            good=subject.good,
            failed=subject.failed,
            reason=subject.reason,
            variant=subject.variant,
            candidate=aggregate(own, digest=subject.digest if canary else "", since=started, until=at),
            incumbent=aggregate(own, digest=subject.before, since=0.0, until=incumbent_until)
            if canary
            else aggregate(own, digest=subject.digest, since=started, until=at),
            truth=report if report is not None and report.digest == subject.digest else None,
        )

    return Evidence(
        devices=tuple(evidence_of(subject) for subject in subjects),
        reference=_reference(rollout.reference),
        min_accuracy=(rollout.truth or {}).get("min_accuracy"),
        min_n=plan.min_n,
    )


def _reference(value: Mapping[str, Any]) -> Mapping[str, Mapping[str, Distribution]]:
    return {
        kind: {
            name: Distribution(kind=item["kind"], counts=tuple(item["counts"]), edges=tuple(item["edges"]))
            for name, item in tensors.items()
        }
        for kind, tensors in value.items()
    }


def subject_from_dict(value: Mapping[str, Any]) -> Subject:
    """A stored subject."""
    return Subject(**value)


def subject_dict(subject: Subject) -> dict[str, Any]:
    """A subject as it is stored."""
    return asdict(subject)
