"""Stream mode over MQTT: samples that arrive on ``in/<slot>``, predictions out on ``out/<slot>``.

Topics, subscriptions and the connection are the link's; this takes payloads and hands answers to a
callable. Samples wait in a bounded queue and are computed in order on one thread: when it is full,
the newest is dropped and counted, because a stream must not grow memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from queue import Full, Queue

from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.samples import answer_json, malformed

MAX_BYTES = 4 << 20


@dataclass(kw_only=True)
class StreamCounts:
    """What a stream has done since its start."""

    received: int = 0
    answered: int = 0
    refused: int = 0
    dropped: int = 0
    unsent: int = 0

    def to_dict(self) -> dict[str, int]:
        """JSON-ready form."""
        return asdict(self)


class MqttStream:
    """One slot's stream.

    Args:
        host: what computes.
        slot: which slot answers.
        publish: sends one answer; False when it could not (offline), which is counted.
        depth: samples that may wait.
    """

    def __init__(
        self, host: ModelHost, slot: str, publish: Callable[[bytes], bool], *, depth: int = 64
    ) -> None:
        self._host, self._slot, self._publish = host, slot, publish
        self._queue: Queue[bytes | None] = Queue(depth)
        self._thread: threading.Thread | None = None
        self.counts = StreamCounts()

    def start(self) -> None:
        """Begin to compute."""
        self._thread = threading.Thread(target=self._work, name=f"stream-{self._slot}", daemon=True)
        self._thread.start()

    def stop(self, *, wait: float = 5.0) -> None:
        """End after the sample under way; what still waits is dropped and counted."""
        while not self._queue.empty():
            self._queue.get_nowait()
            self.counts.dropped += 1
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(wait)
            self._thread = None

    def feed(self, payload: bytes) -> None:
        """Take a sample in, from any thread; never waits."""
        self.counts.received += 1
        try:
            self._queue.put_nowait(payload)
        except Full:
            self.counts.dropped += 1

    def _work(self) -> None:
        while (payload := self._queue.get()) is not None:
            if len(payload) > MAX_BYTES:
                answer, fine = malformed(f"at most {MAX_BYTES} bytes are allowed", "too_large"), False
            else:
                answer, fine = answer_json(self._host, self._slot, payload)
            self.counts.answered += fine
            self.counts.refused += not fine
            self.counts.unsent += not self._publish(answer)


__all__ = ["MAX_BYTES", "MqttStream", "StreamCounts"]
