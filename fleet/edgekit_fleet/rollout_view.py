"""A rollout as JSON: what REST, command line and page are given. The keys are stable (golden files)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit_fleet.db.rollouts import JudgementRow, MemberRow, RingRow, RolloutRow
from edgekit_fleet.db.tables import DeviceRow
from edgekit_fleet.rollout.counting import count
from edgekit_fleet.rollout.plan import Plan
from edgekit_fleet.rollout.states import RingState
from edgekit_fleet.rollouts import back_of, member_of, members_of, plan_of, ring_plan, rings_of, steps_of

SCHEMA = 1


def summary(session: Session, row: RolloutRow) -> dict[str, Any]:
    """A rollout in one line: counts over all its devices, and its rings' states."""
    members = members_of(session, row.id)
    rings = rings_of(session, row.id)
    return {
        **_head(row),
        "counts": count(member_of(m) for m in members).to_dict(),
        "rings": [{"name": ring.name, "state": ring.state} for ring in rings],
    }


def full(session: Session, row: RolloutRow) -> dict[str, Any]:
    """The whole state: rings with gates, members with step and reason, the way back."""
    plan = plan_of(row)
    members = members_of(session, row.id)
    online = set(session.scalars(select(DeviceRow.id).where(DeviceRow.state == "online")))
    return {
        **_head(row),
        "counts": count(member_of(m) for m in members).to_dict(),
        "plan": plan.to_dict(),
        "truth": row.truth,
        "rings": [
            _ring(ring, plan, [m for m in members if m.ring == ring.idx], online)
            for ring in rings_of(session, row.id)
        ],
        "back": _back(members),
    }


def _head(row: RolloutRow) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "id": row.id,
        "release": row.release,
        "package": row.package,
        "previous": row.previous or None,
        "slot": row.slot,
        "state": row.state,
        "pause": row.pause or None,
        "reason": row.reason,
        "ring": row.ring,
        "allow_unverified": row.allow_unverified,
        "actor": row.actor,
        "created": row.created,
        "updated": row.updated,
        "ended": row.ended,
        "revision": row.revision,
    }


def _ring(ring: RingRow, plan: Plan, members: Sequence[MemberRow], online: set[str]) -> dict[str, Any]:
    own = ring_plan(plan, ring)
    judgement = ring.judgement or {}
    soaking = ring.state == RingState.SOAKING.value
    return {
        "index": ring.idx,
        "name": ring.name,
        "state": ring.state,
        "select": own.select.words,
        "counts": count(member_of(m) for m in members).to_dict(),
        "opened": ring.opened or None,
        "soaking_since": ring.soaking_since or None,
        "soak_until": ring.soaking_since + own.soak if soaking else None,
        "closed": ring.closed or None,
        "verdict": ring.verdict or None,
        "reason": ring.reason,
        "look": judgement.get("look"),
        "judged": ring.looked or None,
        "gates": judgement.get("gates", []),
        "excluded": ring.excluded,
        "members": [_member(m, m.device in online) for m in members],
    }


def _member(row: MemberRow, online: bool) -> dict[str, Any]:
    member = member_of(row)
    return {
        "device": row.device,
        "hardware": row.hardware,
        "online": online,
        "variant": row.variant,
        "digest": row.digest,
        "step": row.step,
        "since": row.since,
        "attempt": row.attempt,
        "gen": row.gen,
        "counted": member.counted,
        "late_step": row.late_step or None,
        "retry_at": row.retry_at or None,
        "reason": row.reason,
        "before": (row.before or {}).get("release"),
        "back": {"step": row.back_step, "gen": row.back_gen, "reason": row.back_reason}
        if row.back_step
        else None,
    }


def _back(members: Sequence[MemberRow]) -> dict[str, Any] | None:
    going = [back_of(m) for m in members if m.back_step]
    return count(going).to_dict() if going else None


def explain(session: Session, row: RolloutRow) -> dict[str, Any]:
    """Why it stands where it stands: every judgement that decided something, and each device's way."""
    judgements = session.scalars(
        select(JudgementRow).where(JudgementRow.rollout == row.id).order_by(JudgementRow.id)
    ).all()
    names = {ring.idx: ring.name for ring in rings_of(session, row.id)}
    return {
        **_head(row),
        "judgements": [
            {"id": item.id, "ring": names.get(item.ring, str(item.ring)), "at": item.at, **item.judgement}
            for item in judgements
        ],
        "devices": _device_ways(session, row),
        "timers": plan_of(row).timers.to_dict(),
        "excluded": {
            device: why for ring in rings_of(session, row.id) for device, why in ring.excluded.items()
        },
    }


def _device_ways(session: Session, row: RolloutRow) -> dict[str, list[dict[str, Any]]]:
    ways: dict[str, list[dict[str, Any]]] = {}
    for step in steps_of(session, row.id):
        ways.setdefault(step.device, []).append(
            {
                "step": step.step,
                "at": step.at,
                "attempt": step.attempt,
                "back": step.back,
                "late": step.late,
                "reason": step.reason,
            }
        )
    return ways


def feed(session: Session, row: RolloutRow) -> dict[str, Any]:
    """The retained MQTT feed: small, counts instead of devices."""
    members = members_of(session, row.id)
    rings = []
    for ring in rings_of(session, row.id):
        own = [member_of(m) for m in members if m.ring == ring.idx]
        gates = (ring.judgement or {}).get("gates", [])
        rings.append(
            {
                "name": ring.name,
                "state": ring.state,
                "verdict": ring.verdict or None,
                "counts": count(own).to_dict(),
                "steps": dict(sorted(Counter(m.step.value for m in own).items())),
                "gates": [{"gate": g["gate"], "verdict": g["verdict"], "why": g["why"]} for g in gates],
            }
        )
    return {**_head(row), "rings": rings, "back": _back(members)}
