"""The base part: enrolment, artifacts, devices, slots, releases; keeps TUF's metadata fresh."""

from __future__ import annotations

import logging
import threading

from edgekit.errors import EdgekitError
from edgekit_fleet.context import Fleet, Part
from edgekit_fleet.service.routers import artifacts, catalogue, devices

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 3600.0


class MetadataKeeper:
    """Signs timestamp and snapshot again before they expire; looks every hour and at the start."""

    def __init__(self, fleet: Fleet, *, every: float = _EVERY_SECONDS) -> None:
        self._fleet, self._every = fleet, every
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metadata-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def check(self) -> tuple[str, ...]:
        """Renew what is due; an error is logged, because serving goes on with what is valid."""
        try:
            renewed = self._fleet.repository.refresh()
        except EdgekitError as error:
            _log.error("TUF metadata cannot be renewed: %s", error)
            return ()
        if renewed:
            _log.info("renewed %s metadata", ", ".join(renewed))
        return renewed

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.check()
            self._stopping.wait(self._every)


def base_part(fleet: Fleet) -> Part:
    """What the service cannot be without."""
    return Part(
        routers=[artifacts.build(fleet), devices.build(fleet), catalogue.build(fleet)],
        tasks=[MetadataKeeper(fleet)],
    )
