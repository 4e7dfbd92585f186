"""The page as a part of the service: keeps the feed up to date with what ingest and reconciler did.

The events bus says *that* something changed; what it is now is read from the database, in a worker
thread, so that the page never shows what was not stored. Telemetry comes with its event. A full look
every few seconds makes up for anything the bus had to drop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgekit.documents import ProbeReport, Window
from edgekit.errors import EdgekitError
from edgekit_fleet.context import Fleet, Part
from edgekit_fleet.db.rollouts import MemberRow, RingRow, RolloutRow, StepRow, TelemetryRow
from edgekit_fleet.db.tables import DeviceRow, ProbeSetRow, SlotRow
from edgekit_fleet.events import Event, EventBus, events_of
from edgekit_fleet.rollouts import list_rollouts, members_of, rings_of
from edgekit_fleet.web.access import Access
from edgekit_fleet.web.feed import Feed
from edgekit_fleet.web.routes import page_router
from edgekit_fleet.web.rows import (
    device_news,
    device_view,
    probe_news,
    rollout_news,
    rollout_view,
    slot_view,
    step_news,
)
from edgekit_fleet.web.views import (
    DeviceView,
    LogView,
    ProbeView,
    RolloutView,
    ServiceView,
    View,
    point_view,
    probe_view,
)

_log = logging.getLogger(__name__)
_GATHER_SECONDS = 0.2
_FULL_SECONDS = 5.0
_SEED_ROWS = 5_000
_ROLLOUTS_SHOWN = 8
_PROBES_SHOWN = 4
_STEPS_SHOWN = 50


def web_part(fleet: Fleet) -> Part:
    """Page, events and the task that feeds them."""
    feed = Feed(now=fleet.clock.now, epoch=secrets.token_hex(4))
    access = Access(token=fleet.home.operator_token, now=fleet.clock.now)
    return Part(routers=(page_router(feed, access),), tasks=(Watch(fleet, feed, events_of(fleet)),))


class Watch:
    """Feeds the page while the service runs. `_devices`, `_rollouts` and `_last_step` are what was told
    last; only `_seed` and `_refresh` touch them, and only one of these runs at a time."""

    def __init__(self, fleet: Fleet, feed: Feed, events: EventBus) -> None:
        self._fleet, self._feed, self._events = fleet, feed, events
        self._devices: dict[str, DeviceView] = {}
        self._rollouts: dict[str, RolloutView] = {}
        self._probes: defaultdict[str, deque[ProbeView]] = defaultdict(lambda: deque(maxlen=_PROBES_SHOWN))
        self._changed: set[str] = set()
        self._rollouts_changed = True
        self._last_step = 0
        self._started = fleet.clock.now()
        self._version = version("edgekit-fleet")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End, and end all readers."""
        self._feed.close()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        listener = asyncio.create_task(self._listen())
        try:
            await self._look(self._seed)
            looked = 0.0
            while True:
                due = self._fleet.clock.monotonic() - looked >= _FULL_SECONDS
                if due:
                    looked = self._fleet.clock.monotonic()
                if due or self._changed or self._rollouts_changed:
                    changed, self._changed = self._changed, set()
                    self._rollouts_changed = False
                    await self._look(self._refresh, None if due else changed)
                self._feed.put(self._service())
                await asyncio.sleep(_GATHER_SECONDS)
        finally:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    async def _listen(self) -> None:
        async for event in self._events.subscribe():
            self._hear(event)

    def _hear(self, event: Event) -> None:
        match event.kind:
            case "device":
                self._changed.add(event.body["device"])
            case "telemetry":
                self._feed.put(*self._telemetry(event.body["device"], event.body["document"]))
            case "rollout" | "judgement":
                self._rollouts_changed = True

    async def _look(self, read: Any, *arguments: Any) -> None:
        """Run a database read in a thread; a database that is busy or gone is tried again later."""
        try:
            views = await asyncio.to_thread(read, *arguments)
        except EdgekitError as error:
            _log.warning("the page waits for the database: %s", error)
            return
        self._feed.put(*views)

    def _telemetry(self, device: str, document: Mapping[str, Any]) -> list[View]:
        if document["record"] == Window.kind:
            return [point_view(device, Window.from_dict(document))]
        probe = probe_view(ProbeReport.from_dict(document))
        self._probes[device].appendleft(probe)
        self._changed.add(device)
        return [probe_news(device, probe)]

    def _seed(self) -> list[View]:
        """The plots' past."""
        with self._fleet.database.read() as session:
            query = select(TelemetryRow.device, TelemetryRow.body).order_by(TelemetryRow.id.desc())
            rows = session.execute(query.limit(_SEED_ROWS)).all()
            newest = session.scalar(select(func.max(StepRow.id))) or 0
        self._last_step = max(0, newest - _STEPS_SHOWN)
        return [view for device, body in reversed(rows) for view in self._telemetry(device, body)]

    def _refresh(self, changed: set[str] | None) -> list[View]:
        """What is different now; `changed` devices only, or all for None."""
        now = self._fleet.clock.now()
        views: list[View] = []
        with self._fleet.database.read() as session:
            if changed is None:
                views += [slot_view(row, _newest_probes(session, row.name)) for row in _slots(session)]
            for device in self._read_devices(session, changed):
                before = self._devices.get(device.id)
                views += [device, *device_news(before, device, at=now)]
                self._devices[device.id] = device
            views += self._steps(session)
            for rollout in reversed(_read_rollouts(session)):
                known = self._rollouts.get(rollout.id)
                if known is None and rollout.ended is not None:
                    known = rollout
                views += [rollout, *rollout_news(known, rollout, at=now)]
                self._rollouts[rollout.id] = rollout
        return views

    def _read_devices(self, session: Session, changed: set[str] | None) -> list[DeviceView]:
        query = select(DeviceRow).order_by(DeviceRow.id)
        rows = session.scalars(query if changed is None else query.where(DeviceRow.id.in_(changed))).all()
        places = _places(session, None if changed is None else [row.id for row in rows])
        return [
            device_view(row, place=places.get(row.id), probes=tuple(self._probes[row.id])) for row in rows
        ]

    def _steps(self, session: Session) -> list[LogView]:
        query = select(StepRow).where(StepRow.id > self._last_step).order_by(StepRow.id).limit(1000)
        rows = session.scalars(query).all()
        self._last_step = max([self._last_step, *(row.id for row in rows)])
        return [line for row in rows if (line := step_news(row)) is not None]

    def _service(self) -> ServiceView:
        transport = self._fleet.transport
        return ServiceView(
            tenant=self._fleet.tenant,
            broker=self._fleet.settings.broker.kind,
            connected=transport is not None and transport.connected,
            version=self._version,
            started=self._started,
        )


def _slots(session: Session) -> Sequence[SlotRow]:
    return session.scalars(select(SlotRow).order_by(SlotRow.name)).all()


def _newest_probes(session: Session, slot: str) -> ProbeSetRow | None:
    query = select(ProbeSetRow).where(ProbeSetRow.slot == slot).order_by(ProbeSetRow.n.desc()).limit(1)
    return session.scalars(query).first()


def _read_rollouts(session: Session) -> list[RolloutView]:
    return [
        rollout_view(row, rings_of(session, row.id), members_of(session, row.id))
        for row in list_rollouts(session, limit=_ROLLOUTS_SHOWN)
    ]


def _places(session: Session, devices: Iterable[str] | None) -> dict[str, tuple[str, str]]:
    """Device → its newest rollout and the name of its ring there."""
    query = (
        select(MemberRow.device, MemberRow.rollout, RingRow.name)
        .join(RolloutRow, RolloutRow.id == MemberRow.rollout)
        .join(RingRow, (RingRow.rollout == MemberRow.rollout) & (RingRow.idx == MemberRow.ring))
        .order_by(RolloutRow.created)
    )
    if devices is not None:
        query = query.where(MemberRow.device.in_(list(devices)))
    return {device: (rollout, ring) for device, rollout, ring in session.execute(query)}
