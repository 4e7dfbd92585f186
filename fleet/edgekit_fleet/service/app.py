"""`create_app`: the HTTP application of one fleet, with its tasks tied to its life.

Mounts the routers of all parts, carries every `EdgekitError` as JSON with its status, and starts and
stops transport and tasks with the application: intake stops first, then the tasks, which still
publish what they finish, and the connection last. What the parts are stands in `service.parts`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edgekit.errors import EdgekitError
from edgekit.ports import Subscriber
from edgekit.topics import service_subscriptions
from edgekit_fleet.context import Fleet, Part, ServiceTransport
from edgekit_fleet.errors import error_body, http_status
from edgekit_fleet.service.parts import build_parts

_log = logging.getLogger(__name__)
_FLUSH_SECONDS = 5.0


def create_app(fleet: Fleet, parts: Sequence[Part] | None = None) -> FastAPI:
    """The application of an open fleet.

    Args:
        fleet: with its `transport` when MQTT shall be served; closed by the caller.
        parts: all of `service.parts` by default.
    """
    chosen = tuple(build_parts(fleet) if parts is None else parts)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with contextlib.ExitStack() as stack:
            transport = fleet.transport
            if transport is not None:
                stack.callback(_disconnect, transport)
            for part in chosen:
                for task in part.tasks:
                    task.start()
                    stack.callback(task.stop)
            if transport is not None:
                transport.start(service_subscriptions(fleet.tenant), _dispatcher(chosen))
                stack.callback(transport.pause)
            yield

    app = FastAPI(title="edgekit fleet", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.fleet = fleet
    for part in chosen:
        for router in part.routers:
            app.include_router(router)
    app.add_exception_handler(EdgekitError, _edgekit_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _disconnect(transport: ServiceTransport) -> None:
    """End the connection once the broker has what the tasks published while they stopped."""
    if transport.connected and not transport.flush(_FLUSH_SECONDS):
        _log.warning("the broker did not take everything in %g s; it is published again", _FLUSH_SECONDS)
    transport.stop()


def _dispatcher(parts: Sequence[Part]) -> Subscriber:
    """Hands each message to every part that wants messages, on the transport's thread."""
    receivers = [part.on_message for part in parts if part.on_message is not None]

    def receive(topic: str, payload: bytes, retained: bool) -> None:
        for receiver in receivers:
            receiver(topic, payload, retained)

    return receive


async def _edgekit_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EdgekitError)
    status = http_status(error)
    headers = {"WWW-Authenticate": 'Basic realm="edgekit"'} if status == 401 else None
    return JSONResponse(error_body(error), status_code=status, headers=headers)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    body = {"error": error.detail, "code": f"http_{error.status_code}", "where": None, "remedy": None}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    body = {
        "error": str(first.get("msg", "invalid request")),
        "code": "bad_request",
        "where": ".".join(str(part) for part in first.get("loc", ())),
        "remedy": None,
    }
    return JSONResponse(body, status_code=400)
