"""What the device says about itself: the retained `Reported` document and its history of `Event`s.

One document holds the whole truth; it is numbered (boot_id, seq) and survives a restart through the
journal, so that a finished deployment is still told after a power cut. Publishing is a callable: this
module neither knows MQTT nor decides anything.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from edgekit.documents import DeviceStep, Document, Event, Reason, Reported, SlotState
from edgekit.errors import StorageError
from edgekit.ports import Clock
from edgekit_agent.journal import Journal, SlotRecord

_LOG = logging.getLogger("edgekit.agent")
_EVENTS_KEPT = 100
_REFUSALS_KEPT = 20

Publish = Callable[[str, Document], bool]
"""(leaf, document) → whether it was handed over."""

Ran = Callable[[str], tuple[str, str]]
"""slot → (runtime, backend) that serve it now, empty strings when nothing does."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """Which rollout's try is reported about."""

    gen: int = 0
    deployment: str = ""
    attempt: int = 1


class Reporter:
    """Builds, numbers and publishes reports. Thread-safe."""

    def __init__(self, journal: Journal, *, boot_id: str, clock: Clock, publish: Publish, ran: Ran) -> None:
        self._journal, self._boot, self._clock = journal, boot_id, clock
        self._publish, self._ran = publish, ran
        self._lock = threading.RLock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._seq = self._event_seq = -1
        self._waiting: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._refused: dict[str, int] = {}
        self._last_refusal: Reason | None = None
        self._extra: Callable[[], Mapping[str, Any]] = dict
        self._now = self._remembered()

    @property
    def current(self) -> Reported:
        """The report as it was last made."""
        return self._now

    @property
    def refused(self) -> Mapping[str, int]:
        """Desired documents that were not believed, by code."""
        return dict(self._refused)

    @property
    def last_refusal(self) -> Reason | None:
        """Why the last such document was not believed."""
        return self._last_refusal

    def counters(self, source: Callable[[], Mapping[str, Any]]) -> None:
        """Take members for the report's `extra` (counts of foreign messages and the like) from `source`."""
        self._extra = source

    def step(
        self,
        course: Course,
        step: DeviceStep,
        *,
        slot: str = "",
        percent: int = 0,
        reason: Reason | None = None,
        clock_ok: bool = True,
    ) -> None:
        """Report a step, with an event when it is another one than before."""
        with self._lock:
            before = self._now
            changed = (before.step, before.gen, before.slot, before.reason) != (
                step,
                course.gen,
                slot,
                reason,
            )
            self._now = replace(
                before,
                gen=course.gen,
                deployment=course.deployment,
                attempt=course.attempt,
                step=step,
                slot=slot,
                percent=percent,
                reason=reason,
                clock_ok=clock_ok,
            )
            if changed:
                self._remember()
                self._event(course.deployment, step, slot, reason)
            self.publish()

    def refuse(self, reason: Reason) -> None:
        """Report a document that was not believed: history and counter, no step of any deployment."""
        with self._lock:
            self._refused[reason.code] = self._refused.get(reason.code, 0) + 1
            self._last_refusal = reason
            self._event(self._now.deployment, self._now.step, "", reason)
            self.publish()

    def publish(self) -> None:
        """Make a new report of what is true now and publish it, events that waited first."""
        with self._lock:
            self._seq += 1
            extra = {**self._extra(), "refused": self.refused} if self._refused else dict(self._extra())
            self._now = replace(
                self._now,
                boot_id=self._boot,
                seq=self._seq,
                at=self._clock.now(),
                slots=self._slots(),
                extra=extra,
            )
            while self._waiting and self._publish("ev", self._waiting[0]):
                self._waiting.popleft()
            self._publish("reported", self._now)

    def _event(self, deployment: str, step: DeviceStep, slot: str, reason: Reason | None) -> None:
        self._event_seq += 1
        self._waiting.append(
            Event(
                boot_id=self._boot,
                seq=self._event_seq,
                at=self._clock.now(),
                deployment=deployment,
                step=step,
                slot=slot,
                reason=reason,
            )
        )

    def _slots(self) -> dict[str, SlotState]:
        return {name: self._state(record) for name, record in self._journal.slots().items()}

    def _state(self, record: SlotRecord) -> SlotState:
        active, previous = record.active, record.previous
        runtime, backend = self._ran(record.slot)
        return SlotState(
            release=active.release,
            variant=active.variant,
            digest=active.digest,
            package=active.package,
            runtime=runtime,
            backend=backend,
            since=active.since,
            previous=previous.release if previous else None,
        )

    def _remember(self) -> None:
        kept = json.dumps(replace(self._now, slots={}, extra={}).to_dict())
        self._writer.submit(self._store, kept)

    def _store(self, text: str) -> None:
        try:
            self._journal.put(reported=text)
        except StorageError as error:
            _LOG.error("the last report is not on record: %s", error)

    def close(self) -> None:
        """Wait until everything is on record."""
        self._writer.shutdown(wait=True)

    def _remembered(self) -> Reported:
        text = self._journal.get("reported")
        if text:
            return Reported.from_dict(json.loads(text))
        return Reported(
            boot_id=self._boot, seq=0, gen=0, deployment="", attempt=1, step=DeviceStep.IDLE, at=0.0
        )


__all__ = ["Course", "Publish", "Ran", "Reporter"]
