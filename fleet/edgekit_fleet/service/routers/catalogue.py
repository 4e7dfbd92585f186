"""Slots, releases, the audit trail and the service's own state, for operators."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool

from edgekit.contract import Contract
from edgekit.wire import Fields
from edgekit_fleet.backend import LocalBackend
from edgekit_fleet.context import Fleet
from edgekit_fleet.service.auth import OPERATOR, operator
from edgekit_fleet.service.body import json_body


def build(fleet: Fleet) -> APIRouter:
    """The routes about what `fleet` can bring out, and about the fleet itself."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(operator(fleet))])
    backend = LocalBackend(fleet, actor=OPERATOR)

    @router.get("/slots")
    def slots() -> dict[str, Any]:
        return backend.slots()

    @router.get("/slots/{name}")
    def slot(name: str) -> dict[str, Any]:
        return backend.slot(name)

    @router.post("/slots")
    async def create(request: Request) -> dict[str, Any]:
        fields = Fields(await json_body(request), where="slot")
        contract = Contract.from_dict(fields.mapping("contract"))
        return await run_in_threadpool(backend.create_slot, fields.text("name"), contract)

    @router.get("/releases")
    def releases() -> dict[str, Any]:
        return backend.releases()

    @router.get("/releases/{ref}")
    def release(ref: str) -> dict[str, Any]:
        return backend.release(ref)

    @router.get("/audit")
    def trail(limit: int = 100) -> dict[str, Any]:
        return backend.audit(max(1, min(limit, 10_000)))

    @router.get("/status")
    def status() -> dict[str, Any]:
        return backend.status()

    return router
