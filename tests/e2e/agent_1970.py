"""``edgekit-agent`` on a machine whose clock stands in 1970: for the end-to-end tests only."""

from __future__ import annotations

import sys
import time

from edgekit_agent import clock
from edgekit_agent.cli import main

_STARTED = time.monotonic()


class EpochClock(clock.SystemClock):
    """Counts from a minute after the epoch."""

    def now(self) -> float:
        return 60.0 + time.monotonic() - _STARTED


clock.SystemClock = EpochClock  # type: ignore[misc]  # before the supervisor takes it

if __name__ == "__main__":
    sys.exit(main())
