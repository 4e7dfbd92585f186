"""``/v1/benches``: ask for measurements, look at them, import a device's file. Operators only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from edgekit_fleet.bench_orders import ask_benches, bench, benches, import_results
from edgekit_fleet.context import Fleet
from edgekit_fleet.service.auth import OPERATOR, operator
from edgekit_fleet.service.body import json_body, limited_body

_LIMIT = 4 << 20


def benches_router(fleet: Fleet, wake: Callable[[], None]) -> APIRouter:
    """The routes; `wake` makes the sender look at once."""
    router = APIRouter(prefix="/v1/benches", dependencies=[Depends(operator(fleet))])

    @router.get("")
    def listed(
        device: str | None = None,
        release: str | None = None,
        limit: int = Query(default=200, ge=1, le=2000),
    ) -> dict[str, Any]:
        return benches(fleet, device=device, release=release, limit=limit)

    @router.post("")
    async def ask(request: Request) -> dict[str, Any]:
        body = await json_body(request)
        answer = await run_in_threadpool(ask_benches, fleet, body, actor=OPERATOR)
        wake()
        return answer

    @router.post("/import")
    async def imported(request: Request) -> dict[str, Any]:
        data = await limited_body(request, _LIMIT)
        return await run_in_threadpool(import_results, fleet, data, actor=OPERATOR)

    @router.get("/{cid}")
    def shown(cid: str) -> dict[str, Any]:
        return bench(fleet, cid)

    return router
