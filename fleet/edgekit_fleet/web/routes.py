"""The page's HTTP side: ``/``, its assets, ``/login``, ``/v1/events`` and one device's history.

Mounted by the service's application factory: ``app.include_router(page_router(feed, access))``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cache
from importlib.resources import files
from typing import Any, cast
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from edgekit_fleet.web.access import COOKIE, LIFETIME, Access
from edgekit_fleet.web.feed import Feed

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LOGIN_LIMIT = 4096


def page_router(feed: Feed, access: Access) -> APIRouter:
    """The routes of the page, reading from `feed`, guarded by `access`."""
    router = APIRouter(include_in_schema=False)

    def may_read(request: Request) -> bool:
        return access.may_read(
            peer=request.client.host if request.client else None,
            headers=request.headers,
            cookie=request.cookies.get(COOKIE),
        )

    @router.get("/")
    async def page(request: Request) -> Response:
        if not may_read(request):
            return RedirectResponse("/login", status_code=303, headers=_HEADERS)
        return _asset(request, "index.html")

    @router.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        return _asset(request, name)

    @router.get("/login")
    async def login_form(request: Request) -> Response:
        return _asset(request, "login.html")

    @router.post("/login")
    async def login(request: Request) -> Response:
        body = await _limited_body(request)
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not access.token_fits(given.strip()):
            return RedirectResponse("/login?again=1", status_code=303, headers=_HEADERS)
        answer = RedirectResponse("/", status_code=303, headers=_HEADERS)
        answer.set_cookie(
            COOKIE,
            access.new_cookie(),
            max_age=LIFETIME,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.get("/v1/events")
    async def events(request: Request) -> Response:
        _demand(may_read(request))
        last = request.headers.get("last-event-id") or request.query_params.get("after")
        ended = asyncio.Event()
        return EventSourceResponse(
            _stream(feed, last, ended),
            headers=_HEADERS,
            ping=30,
            shutdown_event=cast(Any, ended),  # set when the server is told to stop
            shutdown_grace_period=2.0,
        )

    @router.get("/v1/events/history")
    async def history(request: Request, device: str) -> Response:
        _demand(may_read(request))
        return JSONResponse({"device": device, "points": feed.history(device)}, headers=_HEADERS)

    return router


def _demand(allowed: bool) -> None:
    if not allowed:
        raise HTTPException(
            401, "sign in at /login, or send the operator token", headers={"WWW-Authenticate": "Bearer"}
        )


async def _stream(feed: Feed, last: str | None, ended: asyncio.Event) -> AsyncIterator[ServerSentEvent]:
    closing = asyncio.create_task(_close_after(ended, feed))
    try:
        async with aclosing(feed.read(last)) as frames:
            async for frame in frames:
                yield ServerSentEvent(data=frame.data, event=frame.event, id=frame.id, retry=2000)
    finally:
        closing.cancel()


async def _close_after(ended: asyncio.Event, feed: Feed) -> None:
    """Let open pages go when the server stops, so that it need not cut them off."""
    await ended.wait()
    feed.close()


async def _limited_body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LOGIN_LIMIT:
            raise HTTPException(413, f"at most {_LOGIN_LIMIT} bytes are taken here")
    return body


@cache
def _assets() -> dict[str, tuple[bytes, str, str]]:
    """Name → content, media type, entity tag of each file of the page."""
    found = {}
    for item in files("edgekit_fleet.web").joinpath("static").iterdir():
        kind = _TYPES.get("." + item.name.rpartition(".")[2])
        if kind:
            content = item.read_bytes()
            found[item.name] = (content, kind, f'"{hashlib.sha256(content).hexdigest()[:24]}"')
    return found


def _asset(request: Request, name: str) -> Response:
    if name not in _assets():
        raise HTTPException(404, f"the page has no file {name!r}")
    content, kind, tag = _assets()[name]
    headers = {**_HEADERS, "ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
