"""Recompute a verdict from stored windows: the same evidence, the same gates, the same figures."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit_fleet.db.rollouts import JudgementRow, RingRow, RolloutRow
from edgekit_fleet.errors import UnknownNameError
from edgekit_fleet.ring_evidence import gather, subject_from_dict
from edgekit_fleet.rollout.judge import Look, judge_ring
from edgekit_fleet.rollout.plan import RingPlan
from edgekit_fleet.rollouts import plan_of, ring_plan


def judgements_of(session: Session, rollout: str, ring: str | None = None) -> list[JudgementRow]:
    """Stored judgements of a rollout, or of one of its rings, oldest first."""
    query = (
        select(JudgementRow)
        .join(RingRow, (RingRow.rollout == JudgementRow.rollout) & (RingRow.idx == JudgementRow.ring))
        .where(JudgementRow.rollout == rollout)
        .order_by(JudgementRow.id)
    )
    return list(session.scalars(query.where(RingRow.name == ring) if ring else query))


def replay(
    session: Session, rollout: RolloutRow, row: JudgementRow, *, plan: RingPlan | None = None
) -> dict[str, Any]:
    """Judge again on the evidence of `row`; with another ring plan, "what would these gates have said".

    The answer has the stored judgement, the recomputed one, and whether they are equal.
    """
    ring = session.get_one(RingRow, (row.rollout, row.ring))
    chosen = plan or ring_plan(plan_of(rollout), ring)
    subjects = [subject_from_dict(item) for item in row.subjects]
    evidence = gather(session, rollout, chosen, subjects, at=row.at, cut=row.cut)
    again = judge_ring(chosen, evidence, Look(row.judgement["look"])).to_dict()
    return {
        "rollout": rollout.id,
        "ring": ring.name,
        "judgement": row.id,
        "at": row.at,
        "devices": len(subjects),
        "same": again == row.judgement,
        "stored": row.judgement,
        "replayed": again,
    }


def replay_rollout(
    session: Session, rollout: RolloutRow, *, ring: str | None = None, plan: RingPlan | None = None
) -> list[dict[str, Any]]:
    """Replay every stored judgement.

    Raises:
        UnknownNameError: no such ring, or nothing was judged yet.
    """
    rows = judgements_of(session, rollout.id, ring)
    if not rows:
        names = session.scalars(select(RingRow.name).where(RingRow.rollout == rollout.id)).all()
        raise UnknownNameError.of("judged ring", ring or "-", names)
    return [replay(session, rollout, row, plan=plan) for row in rows]
