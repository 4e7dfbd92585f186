"""How the rollout commands reach the service, wait for a rollout and turn its end into an exit code."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import InconclusiveError, OperationTimeout, RefusedError, UnavailableError
from edgekit_fleet.cli.options import open_home, operator_token
from edgekit_fleet.client import FleetClient

Json = Mapping[str, Any]
_PATIENCE = 60.0
_OVER = {"completed", "aborted", "rolled_back", "rollback_failed", "superseded"}
_HELD = {"gate", "stalled", "invalidated"}


def open_client(url: str | None, home: Path) -> FleetClient:
    """A client for the service at `url`, or for the one that runs on `home`.

    Raises:
        HomeError: no fleet there.
        UnavailableError: no service runs on the home.
    """
    if url is None:
        place = open_home(home)
        running = place.running_service()
        if running is None:
            raise UnavailableError(
                "no service runs on this home",
                where=str(place.path),
                remedy=f"edgekit fleet serve --home {place.path}",
                code="service_down",
            )
        url = str(running["url"])
    return FleetClient(url, operator_token(home))


@contextlib.contextmanager
def looking(client: FleetClient, url: str | None, home: Path, rollout: str) -> Iterator[Callable[[], Json]]:
    """A function that looks at a rollout; where no address was given it finds a service of the home that
    comes back on another port. The client stays the caller's."""
    with contextlib.ExitStack() as stack:
        now = client

        def look() -> Json:
            nonlocal now
            path = f"/v1/rollouts/{rollout}"
            try:
                found: Json = now.get(path)
            except UnavailableError:
                if url is not None:
                    raise
                now = stack.enter_context(open_client(None, home))
                found = now.get(path)
            return found

        yield look


def follow(
    fetch: Callable[[], Json],
    *,
    every: float,
    until: float | None,
    clock: Callable[[], float] = time.monotonic,
    away: Callable[[float | None], None] = lambda seconds: None,
) -> Iterator[Json]:
    """The rollout again and again until it has ended or is held; a service that restarts is waited for.

    Args:
        fetch: looks at it.
        every: seconds between two looks.
        until: monotonic seconds, None for no end.
        clock: monotonic seconds.
        away: told after each look without an answer for how many seconds there was none, and None
            once there is one again.

    Raises:
        OperationTimeout: `until` has passed; the rollout goes on.
        UnavailableError: the service stays away for a minute.
    """
    reached, missed = clock(), False
    while True:
        try:
            document = fetch()
        except (UnavailableError, OperationTimeout):
            if clock() - reached > _PATIENCE:
                raise
            away(clock() - reached)
            missed = True
        else:
            if missed:
                away(None)
            reached, missed = clock(), False
            yield document
            if settled(document):
                return
        if until is not None and clock() >= until:
            raise OperationTimeout(
                "not finished in the time given; it goes on",
                remedy="edgekit rollout status",
                code="rollout_timeout",
            )
        time.sleep(every)


def settled(document: Json) -> bool:
    """Whether nothing more will happen without a person."""
    return document["state"] in _OVER or (document["state"] == "paused" and document["pause"] in _HELD)


def demand_good_end(document: Json) -> None:
    """Turn the end of a rollout into the command's.

    Raises:
        RefusedError: a gate failed, it was taken back or aborted (exit code 3).
        InconclusiveError: it is held because nothing is proven (exit code 5).
    """
    state, where = document["state"], f"rollout {document['id']}"
    if state in ("rolled_back", "rollback_failed", "aborted"):
        raise RefusedError(f"{state}: {document['reason']}", where=where, code=state)
    if state == "paused" and document["pause"] in _HELD:
        failed = any(ring["state"] == "failed" for ring in document["rings"])
        kind = RefusedError if failed or document["pause"] == "invalidated" else InconclusiveError
        raise kind(
            f"paused: {document['reason']}",
            where=where,
            remedy=f"edgekit rollout explain {document['id']}",
            code=f"paused_{document['pause']}",
        )
