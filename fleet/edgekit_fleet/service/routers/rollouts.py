"""``/v1/rollouts``: look, start, steer, explain, replay. Operators only (bearer token)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from edgekit.errors import UsageError
from edgekit_fleet.context import Fleet
from edgekit_fleet.events import EventBus
from edgekit_fleet.rollout.plan import plan_from_dict
from edgekit_fleet.rollout_orders import abort, begin_rollback, pause, promote, resume
from edgekit_fleet.rollout_replay import replay_rollout
from edgekit_fleet.rollout_start import StartOrder, missing_names, preview, start
from edgekit_fleet.rollout_view import explain, full, summary
from edgekit_fleet.rollouts import get_rollout, list_rollouts, plan_of
from edgekit_fleet.service.auth import OPERATOR, operator
from edgekit_fleet.service.body import json_body

Json = dict[str, Any]


async def _body(request: Request) -> Json:
    return await json_body(request)


Given = Annotated[Json, Depends(_body)]


def rollouts_router(fleet: Fleet, events: EventBus, wake: Callable[[], None]) -> APIRouter:
    """The routes; `wake` makes the reconciler look at once."""
    router = APIRouter(prefix="/v1/rollouts", dependencies=[Depends(operator(fleet))])
    _add_reads(router, fleet)
    _add_orders(router, fleet, events, wake)
    return router


def _add_reads(router: APIRouter, fleet: Fleet) -> None:
    @router.get("")
    def listed(slot: str | None = None) -> Json:
        with fleet.database.read() as session:
            return {"rollouts": [summary(session, row) for row in list_rollouts(session, slot=slot)]}

    @router.get("/{rollout}")
    def shown(rollout: str) -> Json:
        with fleet.database.read() as session:
            return full(session, get_rollout(session, rollout))

    @router.get("/{rollout}/explain")
    def explained(rollout: str) -> Json:
        with fleet.database.read() as session:
            return explain(session, get_rollout(session, rollout))

    @router.post("/{rollout}/replay")
    def replayed(rollout: str, body: Given) -> Json:
        ring = _text(body, "ring") or None
        with fleet.database.read() as session:
            row = get_rollout(session, rollout)
            plan = None
            if body.get("plan") is not None:
                given = plan_from_dict(body["plan"], where=_text(body, "plan_file") or "plan")
                plan = next((item for item in given.rings if item.name == ring), given.rings[0])
            return {"replays": replay_rollout(session, row, ring=ring, plan=plan)}


def _add_orders(router: APIRouter, fleet: Fleet, events: EventBus, wake: Callable[[], None]) -> None:
    def done(rollout: str) -> Json:
        events.publish("rollout", {"rollout": rollout})
        wake()
        with fleet.database.read() as session:
            return full(session, get_rollout(session, rollout))

    @router.post("")
    def started(body: Given) -> Json:
        order = _order(body)
        if body.get("dry_run"):
            with fleet.database.read() as session:
                return preview(fleet, session, order)
        with fleet.database.write() as session:
            row = start(fleet, session, order, actor=OPERATOR)
            name, warnings = row.id, list(missing_names(session, plan_of(row)).warnings)
        return {**done(name), "warnings": warnings}

    @router.post("/{rollout}/{verb}")
    def ordered(rollout: str, verb: str, body: Given) -> Json:
        reason, now = _text(body, "reason"), fleet.clock.now()
        with fleet.database.write() as session:
            match verb:
                case "pause":
                    pause(session, rollout, actor=OPERATOR, reason=reason or "paused by operator", now=now)
                case "resume":
                    resume(session, rollout, actor=OPERATOR, now=now)
                case "promote":
                    promote(session, rollout, actor=OPERATOR, now=now)
                case "abort":
                    row = get_rollout(session, rollout)
                    abort(session, row, actor=OPERATOR, reason=reason or "aborted by operator", now=now)
                case "rollback":
                    row = get_rollout(session, rollout)
                    why = reason or "rolled back by operator"
                    begin_rollback(session, row, actor=OPERATOR, reason=why, now=now)
                case _:
                    raise UsageError(f"{verb!r} is no order", where="rollout", code="unknown_order")
        return done(rollout)


def _order(body: Json) -> StartOrder:
    plan = body.get("plan")
    if plan is not None and not isinstance(plan, dict):
        raise UsageError("an object was expected", where="plan")
    return StartOrder(
        release=_text(body, "release", required=True),
        slot=_text(body, "slot", required=True),
        plan=plan,
        plan_file=_text(body, "plan_file") or "plan",
        allow_unverified=body.get("allow_unverified") is True,
        allow_empty=body.get("allow_empty") is True,
    )


def _text(body: Json, key: str, *, required: bool = False) -> str:
    value = body.get(key, "")
    if not isinstance(value, str) or (required and not value):
        raise UsageError("a string was expected", where=key)
    return value
