"""The in-process bus: what ingest and reconciler did, for whoever watches inside this process.

`publish` may be called from any thread and never blocks; a subscriber that does not keep up loses
its oldest events and is told how many (`Event.missed`). State is in SQL; this is only the hint that
something changed and what.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgekit_fleet.context import Fleet

_BACKLOG = 1000


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened. `kind`: device, telemetry, rollout, judgement, dropped, controller."""

    kind: str
    body: Mapping[str, Any]
    missed: int = 0


class _Subscription:
    def __init__(self, loop: asyncio.AbstractEventLoop, backlog: int) -> None:
        self.loop, self.woken = loop, asyncio.Event()
        self.events: deque[Event] = deque(maxlen=backlog)
        self.missed = 0
        self.lock = threading.Lock()

    def put(self, event: Event) -> None:
        with self.lock:
            self.missed += len(self.events) == self.events.maxlen
            self.events.append(event)
        try:
            self.loop.call_soon_threadsafe(self.woken.set)
        except RuntimeError:  # its loop has ended; the subscription is about to be collected
            return

    def take(self) -> Event | None:
        with self.lock:
            if not self.events:
                self.woken.clear()
                return None
            event = self.events.popleft()
            event = replace(event, missed=self.missed) if self.missed else event
            self.missed = 0
            return event


class EventBus:
    """Thread-safe fan-out.

    Args:
        backlog: events kept for each subscriber that is behind.
    """

    def __init__(self, *, backlog: int = _BACKLOG) -> None:
        self._backlog = backlog
        self._lock = threading.Lock()
        self._subscriptions: weakref.WeakSet[_Subscription] = weakref.WeakSet()
        self._closed = False

    def publish(self, kind: str, body: Mapping[str, Any]) -> None:
        """Tell every subscriber; `body` is JSON-ready and not changed afterwards."""
        event = Event(kind=kind, body=body)
        with self._lock:
            targets = tuple(self._subscriptions)
        for target in targets:
            target.put(event)

    async def subscribe(self) -> AsyncIterator[Event]:
        """Events from now on, until the bus is closed or the iterator is left."""
        mine = _Subscription(asyncio.get_running_loop(), self._backlog)
        with self._lock:
            self._subscriptions.add(mine)
        try:
            while not self._closed:
                event = mine.take()
                if event is not None:
                    yield event
                else:
                    await mine.woken.wait()
        finally:
            with self._lock:
                self._subscriptions.discard(mine)

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscriptions)

    def close(self) -> None:
        """End all subscriptions."""
        self._closed = True
        with self._lock:
            targets = tuple(self._subscriptions)
        for target in targets:
            target.put(Event(kind="closed", body={}))


_BUSES: weakref.WeakKeyDictionary[object, EventBus] = weakref.WeakKeyDictionary()
_BUSES_LOCK = threading.Lock()


def events_of(fleet: Fleet) -> EventBus:
    """The one bus of an open fleet."""
    with _BUSES_LOCK:
        return _BUSES.setdefault(fleet.database, EventBus())
