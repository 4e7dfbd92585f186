"""How the bench commands reach the fleet, through a service or on the home itself, and wait for figures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import click

from edgekit.errors import UnavailableError
from edgekit_fleet.cli.options import actor, local_fleet, open_home, operator_token
from edgekit_fleet.client import FleetClient
from edgekit_fleet.context import Fleet

Json = dict[str, Any]
_LOOK_SECONDS = 0.5
_OPEN = ("waiting", "sent")


class Calls(Protocol):
    """What both ways can do."""

    def ask(self, body: Json) -> Json: ...

    def listed(self, device: str | None, release: str | None, limit: int) -> Json: ...

    def shown(self, cid: str) -> Json: ...

    def imported(self, file: Path) -> Json: ...


class _Remote:
    """Through a service."""

    def __init__(self, client: FleetClient) -> None:
        self._client = client

    def ask(self, body: Json) -> Json:
        return dict(self._client.post("/v1/benches", body))

    def listed(self, device: str | None, release: str | None, limit: int) -> Json:
        given = {"device": device, "release": release, "limit": str(limit)}
        params = {name: value for name, value in given.items() if value}
        return dict(self._client.get("/v1/benches", params))

    def shown(self, cid: str) -> Json:
        return dict(self._client.get(f"/v1/benches/{quote(cid, safe='')}"))

    def imported(self, file: Path) -> Json:
        from edgekit.documents import Envelope
        from edgekit.files import read_bytes

        envelope = Envelope.parse(read_bytes(file, limit=4 << 20))
        return dict(self._client.post("/v1/benches/import", envelope.to_dict()))


class _Local:
    """On the home itself; a service that runs on it sends what is ordered."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def ask(self, body: Json) -> Json:
        from edgekit_fleet.bench_orders import ask_benches

        if self._fleet.home.running_service() is None:
            raise UnavailableError(
                "no service runs on this home, and nothing else reaches devices",
                where=str(self._fleet.home.path),
                remedy="edgekit fleet serve; or --offline-request FILE for a device without a network",
                code="service_down",
            )
        return ask_benches(self._fleet, body, actor=actor())

    def listed(self, device: str | None, release: str | None, limit: int) -> Json:
        from edgekit_fleet.bench_orders import benches

        return benches(self._fleet, device=device, release=release, limit=limit)

    def shown(self, cid: str) -> Json:
        from edgekit_fleet.bench_orders import bench

        return bench(self._fleet, cid)

    def imported(self, file: Path) -> Json:
        from edgekit_fleet.bench_orders import import_file

        return import_file(self._fleet, file, actor=actor())


@contextlib.contextmanager
def opened(home: Path, url: str | None) -> Iterator[Calls]:
    """Through the service at `url`, else on the home itself."""
    if url:
        with FleetClient(url, operator_token(home)) as client:
            yield _Remote(client)
        return
    open_home(home)
    with local_fleet(home) as fleet:
        yield _Local(fleet)


def followed(calls: Calls, benches: Sequence[Mapping[str, Any]], *, quiet: bool) -> list[Mapping[str, Any]]:
    """Wait until every one has ended (each has a time by which it does); their newest states."""
    found = {item["id"]: item for item in benches}
    while waiting := [cid for cid, item in found.items() if item["state"] in _OPEN]:
        time.sleep(_LOOK_SECONDS)
        for cid in waiting:
            before, found[cid] = found[cid], calls.shown(cid)
            if not quiet and found[cid]["state"] != before["state"]:
                item = found[cid]
                click.echo(f"{item['device']}: {item['variant']}: {item['state']}", err=True)
    return list(found.values())
