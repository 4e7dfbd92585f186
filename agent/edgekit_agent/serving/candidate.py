"""A loaded variant that counts requests in and out, so that it is freed with the last one inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit.errors import UnavailableError
from edgekit.ports import Arrays, Session
from edgekit_agent.installed import Installed
from edgekit_agent.serving.values import Result
from edgekit_agent.windows import Counters

if TYPE_CHECKING:
    from edgekit_agent.serving.pipeline import Pipeline

QUICK_MS = 0.5
_SMOOTHING = 0.1


class Candidate:
    """A variant loaded beside and warm. Made by `ModelHost.prepare`; serves once it is switched in."""

    def __init__(
        self,
        *,
        installed: Installed,
        session: Session,
        pipeline: Pipeline,
        counters: Counters,
        runtime: str,
        on_closed: Callable[[Candidate], None],
    ) -> None:
        self.installed = installed
        self.session = session
        self.pipeline = pipeline
        self.counters = counters
        self.runtime = runtime
        self.backend = session.backend
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._inside: dict[int, float] = {}
        self._closing = False
        self._closed = threading.Event()
        self._typical_ms: float | None = None

    def enter(self) -> bool:
        """Count this thread's request in (one at a time); False when it is being freed, and another
        candidate must be asked."""
        with self._lock:
            if self._closing:
                return False
            self._inside[threading.get_ident()] = time.monotonic()
            return True

    def leave(self) -> None:
        """Count a request out; the last one frees a candidate that was taken off."""
        with self._lock:
            del self._inside[threading.get_ident()]
            last = self._closing and not self._inside
        if last:
            self._free()

    @property
    def longest(self) -> float:
        """For how many seconds the oldest request inside has been computed; 0.0 when there is none."""
        with self._lock:
            return time.monotonic() - min(self._inside.values()) if self._inside else 0.0

    @property
    def quick(self) -> bool:
        """Whether its answers have lately taken less than half a millisecond each."""
        return self._typical_ms is not None and self._typical_ms < QUICK_MS

    def took(self, milliseconds: float) -> None:
        """Note how long an answer took. A slow one counts at once, quickness has to be shown."""
        typical = self._typical_ms
        if typical is None or milliseconds > 4 * QUICK_MS:
            self._typical_ms = max(milliseconds, QUICK_MS)
        else:
            self._typical_ms = typical + _SMOOTHING * (milliseconds - typical)

    def run(self, inputs: Arrays) -> Result:
        """One batch through the whole pipeline, not counted (ground-truth probes).

        Raises:
            RequestError, ModelError: as `Pipeline.run`.
        """
        self._must_enter()
        try:
            return self.pipeline.run(inputs)
        finally:
            self.leave()

    def run_model(self, inputs: Arrays) -> Arrays:
        """One batch through the model alone, in the contract's dtypes (package probes).

        Raises:
            ModelError: the runtime failed.
        """
        self._must_enter()
        try:
            return self.session.run(inputs)
        finally:
            self.leave()

    def close(self, *, wait: float = 0.0) -> bool:
        """Take no more requests and free everything with the last one inside. Doing it twice is harmless.

        Args:
            wait: at most so many seconds for that.

        Returns:
            Whether everything is freed.
        """
        with self._lock:
            first, self._closing = not self._closing, True
            idle = first and not self._inside
        if idle:
            self._free()
        return self._closed.wait(wait) if wait else self._closed.is_set()

    def _must_enter(self) -> None:
        if not self.enter():
            raise UnavailableError("the variant was closed", where=self.installed.variant.id, code="closed")

    def _free(self) -> None:
        self.session.close()
        self._on_closed(self)
        self._closed.set()


__all__ = ["Candidate"]
