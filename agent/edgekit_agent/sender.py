"""Which telemetry records travel when: a window of unacknowledged records, resent until acknowledged.

The service's `Ack` moves the window; a reconnect or silence starts it again from the oldest record.
Duplicates are harmless, a lost record is not. Works on an `Outbox` and a publish callable; the caller
says when.
"""

from __future__ import annotations

from collections.abc import Callable

from edgekit.documents import Ack
from edgekit.ports import Clock
from edgekit_agent.outbox import Outbox

WINDOW = 32
"""Most records that wait for an acknowledgement at a time."""

_START = ("", -1)


class Sender:
    """Sends an outbox.

    Args:
        outbox: what to send.
        publish: (slot, payload) → whether it was handed over.
        clock: for the silence after which records are sent again.
        resend: that silence, in seconds.
    """

    def __init__(
        self, outbox: Outbox, publish: Callable[[str, bytes], bool], *, clock: Clock, resend: float
    ) -> None:
        self._outbox, self._publish, self._clock, self._resend = outbox, publish, clock, resend
        self._waiting: set[tuple[str, int]] = set()
        self._cursor = _START
        self._heard = clock.monotonic()

    def restart(self) -> None:
        """Begin again with the oldest record (after each connect)."""
        self._waiting.clear()
        self._cursor = _START
        self._heard = self._clock.monotonic()

    def acknowledge(self, ack: Ack) -> int:
        """Delete what the service has, and make room for more; returns how many were deleted."""
        removed = self._outbox.acknowledge(ack)
        done = {
            key
            for key in self._waiting
            if key[0] == ack.boot_id and (key[1] <= ack.seq or key[1] in ack.also)
        }
        if done:
            self._waiting -= done
            self._heard = self._clock.monotonic()
        return removed

    def pump(self) -> int:
        """Send what may be sent now; returns how many records went out."""
        now = self._clock.monotonic()
        if self._waiting and now - self._heard > self._resend:
            self.restart()
        if not self._waiting:
            self._heard = now
        sent = 0
        for record in self._outbox.pending(WINDOW - len(self._waiting), after=self._cursor):
            if not self._publish(record.slot, record.payload):
                break
            self._cursor = (record.boot_id, record.seq)
            self._waiting.add(self._cursor)
            sent += 1
        return sent


__all__ = ["WINDOW", "Sender"]
