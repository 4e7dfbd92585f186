"""From MQTT to SQL: batches of at most 50 ms or 500 documents, one transaction each, then the ack.

`on_message` runs on the transport's thread and only parses and queues. The worker commits a batch and
only then publishes the acknowledgements, so that what a device deletes is stored. When the database
cannot be written the batch is kept and tried again; the queue fills, the transport's thread waits, and
the broker keeps what follows. Unknown, foreign, malformed, stale and duplicate documents are
counted and leave no trace.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from edgekit.documents import (
    BenchResult,
    DeviceFacts,
    DeviceStep,
    Event,
    Presence,
    ProbeReport,
    Reason,
    Reported,
    Window,
)
from edgekit.errors import StorageError
from edgekit.topics import device_topic
from edgekit_fleet.benches import record_result
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.rollouts import EventRow, MemberRow, ReceivedRow
from edgekit_fleet.db.tables import DeviceRow
from edgekit_fleet.devices import record_facts, record_presence, record_reported, record_seen
from edgekit_fleet.events import EventBus
from edgekit_fleet.rollout.reducers import Arrived, Dropped, Received, newer_presence, read_message
from edgekit_fleet.rollout.states import came_online, heard
from edgekit_fleet.rollouts import BACK, back_of, get_rollout, keep_back, keep_member, member_of, touch
from edgekit_fleet.telemetry import store_batch

_log = logging.getLogger(__name__)
BATCH_SECONDS = 0.05
BATCH_SIZE = 500
_QUEUE = 20_000
_RETRY_SECONDS = 1.0


class Ingest:
    """Takes device documents in. One per service.

    Args:
        fleet: its database and transport are used.
        events: told of what was stored.
        wake: called after each commit, so that the reconciler looks.
    """

    def __init__(self, fleet: Fleet, events: EventBus, *, wake: Callable[[], None] = lambda: None) -> None:
        self._fleet, self._events, self._wake = fleet, events, wake
        self._queue: queue.Queue[Arrived | None] = queue.Queue(maxsize=_QUEUE)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._lock = threading.Lock()
        self.dropped = Dropped()

    def on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        """Take one message; waits while the queue is full."""
        found = read_message(self._fleet.tenant, topic, payload)
        if isinstance(found, str):
            with self._lock:
                self.dropped.add(found)
            self._events.publish("dropped", {"reason": found, "topic": topic[:200]})
            return
        while not self._stopping.is_set():
            try:
                self._queue.put(found, timeout=0.5)
                return
            except queue.Full:
                continue

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """Store what is queued and end."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            batch, ended = self._gather()
            if batch:
                self._store_until_done(batch)
            if ended:
                return

    def _gather(self) -> tuple[list[Arrived], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        batch, until = [first], self._fleet.clock.monotonic() + BATCH_SECONDS
        while len(batch) < BATCH_SIZE:
            left = until - self._fleet.clock.monotonic()
            try:
                item = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                return batch, False
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _store_until_done(self, batch: Sequence[Arrived]) -> None:
        while True:
            try:
                self.store(batch)
                return
            except StorageError as error:
                _log.error("telemetry is kept back: %s", error)
                if self._stopping.wait(_RETRY_SECONDS):
                    return  # not acknowledged: devices send it again

    def store(self, batch: Sequence[Arrived]) -> None:
        """Store one batch in one transaction, then acknowledge and tell.

        Raises:
            StorageError: nothing is stored and nothing acknowledged.
        """
        now = self._fleet.clock.now()
        with self._fleet.database.write() as session:
            outcome = _Outcome()
            known = _preload(session, batch)
            telemetry: list[tuple[str, Window | ProbeReport]] = []
            for item in batch:
                if item.device not in known:
                    outcome.dropped.add("unknown_device")
                elif isinstance(item.document, Window | ProbeReport):
                    telemetry.append((item.device, item.document))
                else:
                    _reduce(session, item, outcome, now)
            acks, duplicates = store_batch(session, telemetry, now=now)
            outcome.dropped.add("duplicate", duplicates)
            for device in {device for device, _ in telemetry}:
                record_seen(session, device, now=now)
        self._acknowledge(acks)
        self._tell(outcome, telemetry)
        self._wake()

    def _acknowledge(self, acks: Mapping[tuple[str, str], Received]) -> None:
        transport = self._fleet.transport
        if transport is None:
            return
        for (device, _), received in sorted(acks.items()):
            topic = device_topic(self._fleet.tenant, device, "ack")
            transport.publish(topic, received.ack().to_bytes(), retain=True)

    def _tell(self, outcome: _Outcome, telemetry: Sequence[tuple[str, Window | ProbeReport]]) -> None:
        with self._lock:
            self.dropped.counts.update(+outcome.dropped.counts)
        for device in sorted(outcome.changed):
            self._events.publish("device", {"device": device})
        for device, document in telemetry:
            self._events.publish("telemetry", {"device": device, "document": document.to_dict()})


class _Outcome:
    """What a batch did."""

    def __init__(self) -> None:
        self.dropped = Dropped()
        self.changed: set[str] = set()


def _preload(session: Session, batch: Sequence[Arrived]) -> Mapping[str, DeviceRow]:
    """The devices of a batch that are enrolled; they, their members and what was received are read at
    once, so that the look-ups that follow cost no query each."""
    names = {item.device for item in batch}
    devices = session.scalars(select(DeviceRow).where(DeviceRow.id.in_(names))).all()
    kept: list[object] = [*session.scalars(select(MemberRow).where(MemberRow.device.in_(names)))]
    kept += session.scalars(select(ReceivedRow).where(ReceivedRow.device.in_(names)))
    session.info["preloaded"] = kept  # the identity map refers weakly
    return {row.id: row for row in devices}


def _reduce(session: Session, item: Arrived, outcome: _Outcome, now: float) -> None:
    """Presence, profile, reported, event or measurement of a known device."""
    match item.document:
        case Presence() as presence:
            news = _presence(session, item.device, presence, now)
        case DeviceFacts() as facts:
            news = record_facts(session, item.device, facts, now=now)
        case Reported() as reported:
            news = record_reported(session, item.device, reported, now=now)
            if news:
                _step(session, item.device, reported, now)
        case Event() as event:
            news = _event(session, item.device, event, now)
        case BenchResult() as result:
            news = record_result(session, item.device, result, now=now)
        case _:
            news = False
    if news:
        outcome.changed.add(item.device)
    else:
        outcome.dropped.add("stale")


def _presence(session: Session, device: str, presence: Presence, now: float) -> bool:
    row = session.get(DeviceRow, device)
    if row is None or not newer_presence((row.session, row.state), presence):
        return False
    record_presence(session, device, presence, now=now)
    if presence.state == "online":
        members = select(MemberRow).where(MemberRow.device == device, MemberRow.gen > 0)
        for member in session.scalars(members):
            if back := came_online(member_of(member), now):
                keep_member(session, member, back, now=now)
                touch(get_rollout(session, member.rollout), now)
            if member.back_gen and (way := came_online(back_of(member), now)):
                keep_back(session, member, way, now=now)
    return True


def _step(session: Session, device: str, reported: Reported, now: float) -> None:
    """What a report means for the rollout it names."""
    going_back = reported.deployment.endswith(BACK)
    row = session.get(MemberRow, (reported.deployment.removesuffix(BACK), device))
    if row is None:
        return
    before = back_of(row) if going_back else member_of(row)
    step, reason = reported.step, reported.reason
    if step.good and (wrong := _wrong_model(session, row, reported, going_back)):
        step, reason = DeviceStep.FAILED, wrong
    after = heard(before, attempt=reported.attempt, step=step, reason=reason, now=now)
    if after is None:
        return
    (keep_back if going_back else keep_member)(session, row, after, now=now)
    touch(get_rollout(session, row.rollout), now)


def _wrong_model(session: Session, row: MemberRow, reported: Reported, going_back: bool) -> Reason | None:
    """A device that says it is done, and reports another model in the slot than it was asked for."""
    slot = get_rollout(session, row.rollout).slot
    wanted = (row.before or {}).get("digest") if going_back else row.digest
    running = reported.slots.get(slot)
    if (running.digest if running else None) == wanted:
        return None
    runs = f"{running.release} ({running.variant})" if running else "nothing"
    return Reason(code="wrong_model", text=f"reports {reported.step.value}, and runs {runs} in slot {slot}")


def _event(session: Session, device: str, event: Event, now: float) -> bool:
    reason: dict[str, Any] | None = event.reason.to_dict() if event.reason else None
    values = {
        "device": device,
        "boot_id": event.boot_id[:64],
        "seq": event.seq,
        "at": event.at,
        "received": now,
        "deployment": event.deployment[:80],
        "slot": event.slot[:64],
        "step": event.step.value,
        "reason": reason,
    }
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    done = session.execute(insert(EventRow).values(values).on_conflict_do_nothing().returning(EventRow.seq))
    return done.first() is not None
