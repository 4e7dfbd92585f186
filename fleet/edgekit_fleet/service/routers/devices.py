"""Enrolment, tokens, the device register, desired documents."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from edgekit.documents import EnrolRequest
from edgekit.errors import DocumentError
from edgekit.wire import Fields
from edgekit_fleet.backend import LocalBackend
from edgekit_fleet.context import Fleet
from edgekit_fleet.desired import current
from edgekit_fleet.devices import get_device
from edgekit_fleet.enrolment import enrol
from edgekit_fleet.errors import AccessError, UnknownNameError
from edgekit_fleet.service.auth import OPERATOR, either, operator
from edgekit_fleet.service.body import json_body, limited_body

_ENROL_LIMIT = 256 << 10


def build(fleet: Fleet) -> APIRouter:
    """The routes about `fleet`'s devices."""
    router = APIRouter(prefix="/v1")
    needs_operator, needs_either = Depends(operator(fleet)), Depends(either(fleet))
    backend = LocalBackend(fleet, actor=OPERATOR)

    @router.post("/enrol")
    async def enrol_device(request: Request) -> Response:
        asked = EnrolRequest.parse(await limited_body(request, _ENROL_LIMIT))
        url = str(request.base_url).rstrip("/")
        answer = await run_in_threadpool(enrol, fleet, asked, url=url)
        return Response(
            answer.to_bytes(), media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    @router.get("/devices/{device}/desired")
    def desired(device: str, caller: str = needs_either) -> Response:
        if caller not in (OPERATOR, device):
            raise AccessError("a device reads its own desired document only", where=device)
        with fleet.database.read() as session:
            get_device(session, device)
            envelope = current(session, device)
        if envelope is None:
            raise UnknownNameError("nothing is desired of this device yet", where=device, code="no_desired")
        return _document(envelope.to_bytes())

    @router.get("/devices", dependencies=[needs_operator])
    def devices() -> dict[str, Any]:
        return backend.devices()

    @router.get("/devices/{device}", dependencies=[needs_operator])
    def one_device(device: str) -> dict[str, Any]:
        return backend.device(device)

    @router.put("/devices/{device}/pins/{slot}", dependencies=[needs_operator])
    async def pin(device: str, slot: str, request: Request) -> dict[str, Any]:
        release = Fields(await json_body(request), where="pin").maybe_text("release")
        return await run_in_threadpool(backend.pin, device, slot, release)

    @router.get("/tokens", dependencies=[needs_operator])
    def tokens() -> dict[str, Any]:
        return backend.tokens()

    @router.post("/tokens", dependencies=[needs_operator])
    async def token(request: Request) -> dict[str, Any]:
        fields = Fields(await json_body(request), where="token")
        ttl = fields.number("ttl", 86_400.0)
        if ttl <= 0:
            raise DocumentError("seconds above 0 were expected", where="token.ttl")
        return await run_in_threadpool(backend.token, fields.text("name", ""), ttl)

    return router


def _document(data: bytes) -> Response:
    return Response(data, media_type="application/json", headers={"Cache-Control": "no-store"})
