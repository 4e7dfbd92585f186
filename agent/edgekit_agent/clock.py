"""Time on a device whose clock may be wrong: the system clock, and the floor below which nothing installs.

A board without a battery wakes up in 1970. It goes on serving, but expiry dates mean nothing then, so
nothing is installed until the clock has passed the floor: the newest time this device has seen
signed, at least the time this agent was built.
"""

from __future__ import annotations

import time

from edgekit_agent.journal import Journal

BUILT = 1_793_491_200.0
"""2026-11-01, set with each release of the agent: no true clock shows less."""

SLACK = 300.0
"""Seconds a device's clock may be behind the signer's."""

_FUTURE = 86_400.0


class SystemClock:
    """`edgekit.ports.Clock` by the operating system."""

    def now(self) -> float:
        """Seconds since the epoch, as the machine believes."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some start; never goes back."""
        return time.monotonic()


class ClockFloor:
    """The lowest believable time, kept in the journal."""

    def __init__(self, journal: Journal, *, built: float = BUILT) -> None:
        self._journal, self._built = journal, built

    @property
    def value(self) -> float:
        """Seconds since the epoch."""
        return max(self._built, float(self._journal.get("clock_floor", "0")))

    def met(self, now: float) -> bool:
        """Whether a clock that shows `now` can be believed."""
        return now >= self.value - SLACK

    def saw(self, signed: float, *, now: float) -> None:
        """Raise the floor to a signed time; one far in the future cannot lock the device for ever."""
        seen = min(signed, now + _FUTURE)
        if seen > self.value:
            self._journal.put(clock_floor=repr(seen))


__all__ = ["BUILT", "SLACK", "ClockFloor", "SystemClock"]
