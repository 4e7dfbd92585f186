"""The newest state of everything the page shows, and its changes, for any number of readers.

A reader gets a snapshot first and then the changes after it. There is one shared backlog and each
reader is only a position in it, so a slow reader costs nothing and can never hold memory: when the
backlog has moved past it, it gets a new snapshot. Positions are ``<epoch>-<number>``; the epoch
changes with each start of the service, so that a browser that resumes after a restart gets a
snapshot, not a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from edgekit_fleet.web.views import (
    DeviceView,
    LogView,
    PointView,
    RolloutView,
    ServiceView,
    SlotView,
    View,
)

Body = dict[str, Any]
_KEEP = frozenset({"point", "log"})


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message to a reader: `event` is ``snapshot``, ``changes`` or ``beat``."""

    event: str
    data: str
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Change:
    number: int
    kind: str
    key: str
    body: Body | None

    def to_dict(self) -> Body:
        return {"kind": self.kind, "key": self.key, "body": self.body}


class Feed:
    """Thread-safe; `put` may be called from any thread, `read` runs in each reader's event loop.

    Args:
        now: wall clock, seconds since the epoch.
        epoch: names this run of the service.
        backlog: changes kept for readers that resume.
        points: telemetry windows kept for the plots, over all devices.
    """

    def __init__(
        self, *, now: Callable[[], float], epoch: str, backlog: int = 2_000, points: int = 20_000
    ) -> None:
        self._now = now
        self._epoch = epoch
        self._lock = threading.Lock()
        self._state: dict[str, dict[str, Body]] = {k: {} for k in ("service", "slot", "device", "rollout")}
        self._points: deque[Body] = deque(maxlen=points)
        self._log: deque[Body] = deque(maxlen=200)
        self._backlog: deque[_Change] = deque(maxlen=backlog)
        self._number = 0
        self._readers: dict[int, Callable[[], None]] = {}
        self._names = itertools.count()
        self._closed = False

    def put(self, *views: View) -> None:
        """Record views; a view equal to the one already there is not sent again."""
        with self._lock:
            for view in views:
                self._record(*_kind_and_key(view), view.to_dict())
            wakers = list(self._readers.values())
        for wake in wakers:
            wake()

    def remove(self, kind: str, key: str) -> None:
        """Forget a device, rollout or slot."""
        with self._lock:
            if self._state[kind].pop(key, None) is not None:
                self._append(kind, key, None)
            wakers = list(self._readers.values())
        for wake in wakers:
            wake()

    def close(self) -> None:
        """End all readers, so that the service can stop without waiting for open pages."""
        self._closed = True
        with self._lock:
            wakers = list(self._readers.values())
        for wake in wakers:
            wake()

    def history(self, device: str) -> list[Body]:
        """The points kept of one device, oldest first."""
        with self._lock:
            return [point for point in self._points if point["device"] == device]

    @property
    def readers(self) -> int:
        """How many pages are being fed."""
        return len(self._readers)

    async def read(
        self, last_id: str | None, *, beat: float = 5.0, pause: float = 0.25
    ) -> AsyncGenerator[Frame, None]:
        """Yield frames for one reader, until the feed is closed.

        Args:
            last_id: what the browser sends as Last-Event-ID; None on its first visit.
            beat: seconds after which a silent feed says that it lives.
            pause: least seconds between two messages, in which changes gather.
        """
        with self._reader() as woken:
            position = self._position(last_id)
            while not self._closed:
                woken.clear()
                frame, position = self._next(position)
                if frame is not None:
                    yield frame
                    await asyncio.sleep(pause)
                    continue
                try:
                    await asyncio.wait_for(woken.wait(), beat)
                except TimeoutError:
                    yield Frame(event="beat", data=json.dumps({"at": self._now()}))

    @contextlib.contextmanager
    def _reader(self) -> Any:
        loop, woken, name = asyncio.get_running_loop(), asyncio.Event(), next(self._names)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # that reader's loop has ended
                loop.call_soon_threadsafe(woken.set)

        with self._lock:
            self._readers[name] = wake
        try:
            yield woken
        finally:
            with self._lock:
                self._readers.pop(name, None)

    def _position(self, last_id: str | None) -> int | None:
        epoch, _, number = (last_id or "").rpartition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdigit()) or len(number) > 15:
            return None
        return int(number)

    def _next(self, position: int | None) -> tuple[Frame | None, int]:
        """The frame after `position`; None for the frame when the reader has everything."""
        with self._lock:
            here = self._number
            if position == here:
                return None, here
            oldest = self._backlog[0].number if self._backlog else here + 1
            if position is None or position > here or position + 1 < oldest:
                return self._frame("snapshot", self._snapshot()), here
            fresh = [change for change in self._backlog if change.number > position]
            changes = [change.to_dict() for change in _newest(fresh)]
            return self._frame("changes", {"at": self._now(), "changes": changes}), here

    def _frame(self, event: str, body: Body) -> Frame:
        data = json.dumps(body, separators=(",", ":"), allow_nan=False)
        return Frame(event=event, data=data, id=f"{self._epoch}-{self._number}")

    def _snapshot(self) -> Body:
        recent = list(itertools.islice(reversed(self._points), 2_000))
        return {
            "at": self._now(),
            **{kind: list(members.values()) for kind, members in self._state.items()},
            "point": recent[::-1],
            "log": list(self._log),
        }

    def _record(self, kind: str, key: str, body: Body) -> None:
        if kind in _KEEP:
            (self._points if kind == "point" else self._log).append(body)
        elif self._state[kind].get(key) == body:
            return
        else:
            self._state[kind][key] = body
        self._append(kind, key, body)

    def _append(self, kind: str, key: str, body: Body | None) -> None:
        self._number += 1
        self._backlog.append(_Change(number=self._number, kind=kind, key=key, body=body))


def _newest(changes: list[_Change]) -> list[_Change]:
    """Without the changes that a later one of the same thing replaces."""
    last = {(c.kind, c.key): c.number for c in changes if c.kind not in _KEEP}
    return [c for c in changes if c.kind in _KEEP or last[c.kind, c.key] == c.number]


def _kind_and_key(view: View) -> tuple[str, str]:
    match view:
        case DeviceView():
            return "device", view.id
        case RolloutView():
            return "rollout", view.id
        case SlotView():
            return "slot", view.name
        case PointView():
            return "point", view.device
        case LogView():
            return "log", ""
        case ServiceView():
            return "service", ""
        case _:
            raise TypeError(f"the page shows no {type(view).__name__}")
