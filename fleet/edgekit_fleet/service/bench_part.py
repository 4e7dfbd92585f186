"""Measurements as a part of the running service: sends what is due, ends what came to nothing, routes.

One order at a time goes to a device, when it is online; everything stands in SQL, so that a killed service
goes on. Results come in with all other documents (`service.ingest`).
"""

from __future__ import annotations

import logging
import secrets
import threading

from edgekit.errors import EdgekitError
from edgekit.topics import device_topic
from edgekit_fleet.benches import due, expire, is_open, send, take_back
from edgekit_fleet.context import Fleet, Part
from edgekit_fleet.service.lease import give_up, hold
from edgekit_fleet.service.routers.benches import benches_router
from edgekit_fleet.trust.director import Director
from edgekit_fleet.trust.keys import DIRECTOR

_log = logging.getLogger(__name__)
LEASE = "bench"
_LEASE_SECONDS = 10.0
_TICK = 0.5
_AGAIN = 600.0


class BenchSender:
    """Sends orders out."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._owner = secrets.token_hex(8)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench", daemon=True)

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.tick()
            except EdgekitError as error:
                _log.error("measurements stand still: %s", error)
                self._stopping.wait(2.0)
            self._wake.wait(_TICK)
            self._wake.clear()
        try:
            with self._fleet.database.write() as session:
                give_up(session, LEASE, self._owner)
        except EdgekitError as error:
            _log.warning("the lease of measurements is left to run out: %s", error)

    def tick(self) -> int:
        """Do what is due now; returns how many orders went out."""
        fleet = self._fleet
        with fleet.database.read() as session:
            if not is_open(session):
                return 0
        transport = fleet.transport
        orders: list[tuple[str, str, bytes]] = []
        with fleet.database.write() as session:
            now = fleet.clock.now()
            if not hold(session, LEASE, self._owner, now=now, seconds=_LEASE_SECONDS):
                return 0
            expire(session, now=now)
            if transport is not None and transport.connected and (rows := due(session, now=now)):
                director = Director.load(fleet.repository.key_folder(DIRECTOR))
                orders = [(row.device, row.cid, send(row, director, now=now)) for row in rows]
        for device, cid, payload in orders:
            topic = device_topic(fleet.tenant, device, "cmd", cid)
            if transport is None or not transport.publish(topic, payload):
                self._take_back(cid)
        return len(orders)

    def _take_back(self, cid: str) -> None:
        with self._fleet.database.write() as session:
            take_back(session, cid, wait_until=self._fleet.clock.now() + _AGAIN)


def bench_part(fleet: Fleet) -> Part:
    """Measurements on devices."""
    sender = BenchSender(fleet)
    return Part(routers=(benches_router(fleet, sender.wake),), tasks=(sender,))
