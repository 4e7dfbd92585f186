"""The reconciler: holds the lease, moves every rollout by small transactions, publishes what is stored.

It keeps nothing in memory that matters: killed at any point, the next one goes on from SQL. Desired
documents are published from the table, again at each start, after each reconnect and by a slow sweep.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.errors import EdgekitError
from edgekit.topics import device_topic, rollout_topic
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.rollouts import MemberRow, RingRow, RolloutRow
from edgekit_fleet.db.tables import DesiredRow, DeviceRow
from edgekit_fleet.desired import forget_published, mark_published, unpublished
from edgekit_fleet.events import EventBus
from edgekit_fleet.rollout.states import MemberStep, RingState, RolloutState
from edgekit_fleet.rollout_view import feed
from edgekit_fleet.rollouts import live_rollouts
from edgekit_fleet.service.late import LateMover
from edgekit_fleet.service.lease import give_up, hold
from edgekit_fleet.service.mover import Mover
from edgekit_fleet.telemetry import forget_before
from edgekit_fleet.trust.director import Director
from edgekit_fleet.trust.keys import DIRECTOR, key_path

M = TypeVar("M", bound=Mover)
_log = logging.getLogger(__name__)
LEASE = "reconciler"
LEASE_SECONDS = 6.0
SWEEP_SECONDS = 600.0
KEEP_TELEMETRY = 30 * 86_400.0
_TICK = 0.25
_ADOPT_EVERY = 2.0
_FEED_EVERY = 1.0


class Reconciler:
    """Moves the rollouts of one fleet.

    Args:
        fleet: its database, keys and transport are used.
        events: told of what changed, after each commit.
    """

    def __init__(self, fleet: Fleet, events: EventBus) -> None:
        self._fleet, self._events = fleet, events
        self._owner = secrets.token_hex(8)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._republish = threading.Event()
        self._republish.set()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._renew_at = self._sweep_at = self._adopt_at = 0.0
        self._fed: dict[str, float] = {}
        self._director: Director | None = None
        self._director_mark: tuple[int, int] | None = None
        self.holds_lease = False

    def wake(self) -> None:
        """Look soon: something was stored."""
        self._wake.set()

    def start(self) -> None:
        """Start the thread."""
        if self._fleet.transport is not None:
            self._fleet.transport.on_connection(self._connection)
        self._thread.start()

    def stop(self) -> None:
        """Finish the step in hand, give the lease back, end."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(10)

    def _connection(self, connected: bool) -> None:
        """On the transport's thread: a broker may have lost what was retained."""
        if connected:
            self._republish.set()
            self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.tick()
            except EdgekitError as error:
                self.holds_lease = False
                _log.error("rollouts stand still: %s", error)
                self._stopping.wait(1.0)
            self._wake.wait(_TICK)
            self._wake.clear()
            self._stopping.wait(0.02)  # what arrives together is looked at together
        try:
            with self._fleet.database.write() as session:
                give_up(session, LEASE, self._owner)
        except EdgekitError as error:
            _log.warning("the lease is left to run out: %s", error)

    def tick(self) -> bool:
        """Everything that is due now; False while another process holds the lease.

        Raises:
            EdgekitError: the database cannot be written; nothing of the failed step is stored.
        """
        now = self._fleet.clock.now()
        if not self._lease(now):
            return False
        with self._fleet.database.read() as session:
            names = [row.id for row in live_rollouts(session)]
            names += [row.id for row in _unsent(session)]
        for name in dict.fromkeys(names):
            self._move(name, now)
        if now >= self._adopt_at or now < self._adopt_at - 10 * _ADOPT_EVERY:
            self._adopt_at = now + _ADOPT_EVERY
            self._adopt(now)
        self._sweep(now)
        self._publish()
        self._feed(now)
        return True

    def _lease(self, now: float) -> bool:
        if self.holds_lease and self._renew_at - LEASE_SECONDS <= now < self._renew_at:
            return True
        with self._fleet.database.write() as session:
            self.holds_lease = hold(session, LEASE, self._owner, now=now, seconds=LEASE_SECONDS)
        self._renew_at = now + LEASE_SECONDS / 3
        return self.holds_lease

    def _sign(self) -> Director:
        """The director whose key is in place now; it may be rotated while the service runs."""
        key = key_path(self._fleet.home.keys, DIRECTOR)
        mark = _mark(key)
        if self._director is None or mark != self._director_mark:
            self._director, self._director_mark = Director.load(self._fleet.home.keys), mark
        return self._director

    def _move(self, rollout: str, now: float) -> None:
        if self._within(rollout, now, Mover, lambda mover: mover.move()):
            self._wake.set()

    def _within(self, rollout: str, now: float, kind: type[M], step: Callable[[M], None]) -> bool:
        """One step of a rollout in one transaction, told of after its commit; whether it changed anything."""
        told: list[tuple[str, Mapping[str, Any]]] = []
        with self._fleet.database.write() as session:
            row = session.get_one(RolloutRow, rollout)
            before = row.revision
            step(
                kind(
                    session=session,
                    director=self._sign(),
                    row=row,
                    now=now,
                    tell=lambda kind, body: told.append((kind, body)),
                )
            )
            changed = row.revision != before
        for event, body in told:
            self._events.publish(event, body)
        if changed:
            self._events.publish("rollout", {"rollout": rollout})
        return changed

    def _adopt(self, now: float) -> None:
        """Completed rollouts, the newest of each slot, take in devices that arrived since."""
        with self._fleet.database.read() as session:
            newest = _newest_completed(session)
            due = [name for name, ended in newest if _may_have_arrivals(session, name, ended)]
        for name in due:
            self._within(name, now, LateMover, lambda mover: mover.adopt())

    def _sweep(self, now: float) -> None:
        if now < self._sweep_at and now >= self._sweep_at - 2 * SWEEP_SECONDS:
            return
        self._sweep_at = now + SWEEP_SECONDS
        self._republish.set()
        with self._fleet.database.write() as session:
            slots = [row.slot for row in live_rollouts(session)]
            forget_before(session, now - KEEP_TELEMETRY, keep_slots=slots)

    def _publish(self) -> None:
        """Hand stored desired documents to the broker; what it does not take stays due."""
        transport = self._fleet.transport
        if transport is None or not transport.connected:
            return
        if self._republish.is_set():
            self._republish.clear()
            with self._fleet.database.write() as session:
                forget_published(session)
        while True:
            with self._fleet.database.read() as session:
                due = unpublished(session)
            sent: dict[str, int] = {}
            for device, gen, payload in due:
                if transport.publish(
                    device_topic(self._fleet.tenant, device, "desired"), payload, retain=True
                ):
                    sent[device] = gen
            if not sent:
                return
            with self._fleet.database.write() as session:
                mark_published(session, sent)
            if len(sent) < len(due) or self._stopping.is_set():
                return

    def _feed(self, now: float) -> None:
        """The retained feed about each rollout, at most once a second, after the last change too."""
        transport = self._fleet.transport
        if transport is None or not transport.connected:
            return
        with self._fleet.database.read() as session:
            rows = session.scalars(select(RolloutRow).where(RolloutRow.published < RolloutRow.revision)).all()
            bodies = [
                (row.id, row.revision, feed(session, row))
                for row in rows
                if not 0 <= now - self._fed.get(row.id, 0.0) < _FEED_EVERY
            ]
        for name, revision, body in bodies:
            payload = json.dumps(body, separators=(",", ":")).encode()
            if not transport.publish(rollout_topic(self._fleet.tenant, name), payload, retain=True):
                continue
            self._fed[name] = now
            with self._fleet.database.write() as session:
                session.get_one(RolloutRow, name).published = revision


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _unsent(session: Session) -> list[RolloutRow]:
    """Aborted rollouts with devices that still have to be sent back."""
    query = (
        select(RolloutRow)
        .join(MemberRow, MemberRow.rollout == RolloutRow.id)
        .where(RolloutRow.state == RolloutState.ABORTED.value, MemberRow.back_step == "targeted")
        .distinct()
    )
    return list(session.scalars(query))


def _newest_completed(session: Session) -> list[tuple[str, float]]:
    """The newest completed rollout of each slot as (id, created); not where one is under way."""
    under_way = {row.slot for row in live_rollouts(session)}
    query = (
        select(RolloutRow)
        .where(RolloutRow.state == RolloutState.COMPLETED.value)
        .order_by(RolloutRow.created, RolloutRow.id)
    )
    newest = {row.slot: row for row in session.scalars(query)}
    return [(row.id, row.created) for slot, row in newest.items() if slot not in under_way]


def _may_have_arrivals(session: Session, rollout: str, since: float) -> bool:
    """Whether a device has no desired document yet, is on its way in this rollout or back from it, or its
    late ring is still to be judged."""
    fresh = select(DeviceRow.id).outerjoin(DesiredRow, DesiredRow.device == DeviceRow.id)
    if session.scalars(fresh.where(DesiredRow.device.is_(None)).limit(1)).first() is not None:
        return True
    if session.scalars(select(DeviceRow.id).where(DeviceRow.enrolled >= since).limit(1)).first() is not None:
        return True
    terminal = [step.value for step in MemberStep if step.terminal]
    under_way = MemberRow.step.not_in(terminal) | MemberRow.back_step.not_in(["", *terminal])
    unfinished = select(MemberRow.device).where(MemberRow.rollout == rollout, under_way)
    if session.scalars(unfinished.limit(1)).first() is not None:
        return True
    states = [state.value for state in RingState if state.open]
    judged = select(RingRow.idx).where(RingRow.rollout == rollout, RingRow.state.in_(states))
    return session.scalars(judged.limit(1)).first() is not None
