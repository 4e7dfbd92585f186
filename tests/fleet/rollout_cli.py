"""The rollout commands over the real routes in this process: click, HTTP application, simulated fleet."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from fastapi import FastAPI

from edgekit_fleet.cli import rollout_calls
from edgekit_fleet.cli.rollout import rollout
from edgekit_fleet.client import FleetClient
from edgekit_fleet.context import Part
from edgekit_fleet.service.app import create_app
from edgekit_fleet.service.routers.rollouts import rollouts_router
from tests.simulators.sim_fleet import SimFleet


class AppTransport(httpx.BaseTransport):
    """HTTP into an application without a socket."""

    def __init__(self, app: FastAPI) -> None:
        self._app = httpx.ASGITransport(app=app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=body)
        answer = await self._app.handle_async_request(asked)
        content = await httpx.Response(200, stream=answer.stream).aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


class RolloutCli:
    """`edgekit rollout …` against a simulated fleet. Each look of a waiting command lets time pass."""

    def __init__(self, sim: SimFleet, patch: pytest.MonkeyPatch) -> None:
        self._sim = sim
        parts = [Part(routers=(rollouts_router(sim.fleet, sim.events, lambda: None),))]
        transport = AppTransport(create_app(sim.fleet, parts))
        self.http = httpx.Client(base_url="http://testserver", transport=transport)
        token = sim.home.operator_token()
        patch.setattr(
            rollout_calls,
            "open_client",
            lambda url, home: FleetClient("http://testserver", token, transport=transport),
        )
        patch.setattr("edgekit_fleet.cli.rollout_calls.time.sleep", lambda seconds: sim.advance(2.0))

    def run(self, *words: str) -> Result:
        """Run a command; an EdgekitError is the result's exception."""
        return CliRunner().invoke(rollout, [*words, "--home", str(self._sim.home.path)])

    def exit_code(self, *words: str) -> int:
        """The exit code `edgekit` would end with."""
        result = self.run(*words)
        if result.exception is None or isinstance(result.exception, SystemExit):
            return result.exit_code
        code: Any = getattr(result.exception, "exit_code", None)
        assert isinstance(code, int), result.exception
        return code
