"""Measurements on command, for the resident agent: one at a time, and never in the way of a deployment.

An order is carried out in a process of its own at the lowest priority (`edgekit_agent.bench_run`); while
something is being installed or on trial it is refused, and a deployment that arrives ends it. What nobody
of trust has signed is answered with nothing, and a row of it with longer and longer silence, so that a
broker gone bad cannot keep the device busy with checking signatures.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from edgekit.documents import BenchResult, Reason
from edgekit.errors import EdgekitError
from edgekit_agent.bench_run import Bench, peeked
from edgekit_agent.errors import BusyError, VerificationError

_LOG = logging.getLogger("edgekit.agent")
_WAITING = 8
_UNSENT = 32
_LOOK_SECONDS = 0.1
_FIRST_SILENCE, _LONGEST_SILENCE = 1.0, 600.0


class Bencher:
    """Takes orders and sends results.

    Args:
        bench: carries one out.
        busy: whether the device installs or tries something now.
        publish: sends a result; whether it was handed over.
        refuse: reports an order that was not believed.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        busy: Callable[[], bool],
        publish: Callable[[BenchResult], bool],
        refuse: Callable[[Reason], None],
    ) -> None:
        self._bench, self._busy, self._publish, self._refuse = bench, busy, publish, refuse
        self._orders: deque[bytes] = deque()
        self._unsent: deque[BenchResult] = deque(maxlen=_UNSENT)
        self._wake = asyncio.Event()
        self._silent_until, self._silence = 0.0, 0.0
        self.measured = 0

    def offer(self, cid: str | None, envelope: bytes) -> None:
        """A command arrived (on the loop's thread)."""
        claimed = peeked(envelope)
        now = self._bench.clock.monotonic()
        if claimed is None or claimed.cid != cid or claimed.device != self._bench.device:
            self._refuse(Reason(code="malformed", text="a command that is no order for this device"))
        elif now < self._silent_until or len(self._orders) >= _WAITING:
            _LOG.warning("command %s is not looked at: too many at a time", claimed.cid)
        else:
            self._orders.append(envelope)
            self._wake.set()

    def connected(self) -> None:
        """Send what could not be sent before."""
        while self._unsent and self._publish(self._unsent[0]):
            self._unsent.popleft()

    async def run(self) -> None:
        """Work until cancelled; a measurement under way is ended then, and its result says so."""
        await asyncio.to_thread(self._tell_interrupted)
        self.connected()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._orders:
                await self._one(self._orders.popleft())

    def _tell_interrupted(self) -> None:
        """An order that was under way when the last process ended has its result now."""
        book = self._bench.book
        try:
            with book.alone():
                found = book.interrupted()
                if found is None:
                    return
                book.done()
        except EdgekitError as error:
            _LOG.error("measurements: %s", error)
            return
        text = "the agent restarted during the measurement"
        reason = Reason(code="restarted", text=text, retryable=True)
        bench = self._bench
        result = BenchResult(
            cid=found["cid"],
            device=bench.device,
            state="failed",
            at=bench.clock.now(),
            digest=found["digest"],
            hardware=bench.facts.hardware,
            reason=reason,
        )
        self._unsent.append(result)

    async def _one(self, envelope: bytes) -> None:
        stop = threading.Event()
        if self._busy():
            stop.set()
        work = asyncio.ensure_future(asyncio.to_thread(self._measured, envelope, stop))
        try:
            while not (await asyncio.wait([work], timeout=_LOOK_SECONDS))[0]:
                if self._busy():
                    stop.set()
            result = work.result()
        except asyncio.CancelledError:
            stop.set()
            await asyncio.gather(work, return_exceptions=True)
            self._send(None if work.exception() else work.result())
            raise
        self._send(result)

    def _send(self, result: BenchResult | None) -> None:
        if result is not None:
            self.measured += result.state == "done"
            self._unsent.append(result)
            self.connected()

    def _measured(self, envelope: bytes, stop: threading.Event) -> BenchResult | None:
        """The result; None for what nobody of trust has ordered."""
        bench = self._bench
        try:
            result = bench.measure(envelope, stop=stop)
        except VerificationError as error:
            self._distrust(error)
            return None
        except BusyError as error:
            claimed = peeked(envelope)
            return bench.ended(claimed, "refused", error) if claimed else None
        except EdgekitError as error:
            _LOG.error("measurement: %s", error)
            return None
        self._silence = 0.0
        return result

    def _distrust(self, error: VerificationError) -> None:
        _LOG.warning("a command was refused (%s): %s", error.code, error)
        self._refuse(Reason(code=error.code, text=str(error), retryable=error.retryable))
        if error.stage == "envelope" and error.code not in ("replayed", "expired"):
            self._silence = min(max(_FIRST_SILENCE, 2 * self._silence), _LONGEST_SILENCE)
            self._silent_until = self._bench.clock.monotonic() + self._silence


__all__ = ["Bencher"]
