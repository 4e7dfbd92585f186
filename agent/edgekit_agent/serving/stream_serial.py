"""Stream mode over a serial line: samples as lines of text, or as frames.

Text: one CSV or JSON sample a line in, one JSON answer a line out. Frames: `stream_frames`.

A line that is no sample gets an error line; one that is too long is skipped to its end and gets one
too. A port that vanishes (a cable, a reset board) is opened again for as long as the stream runs.
pyserial is imported when the stream starts.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

from edgekit.errors import UnavailableError
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.samples import answer_csv, answer_json, malformed
from edgekit_agent.serving.stream_mqtt import StreamCounts

LOG = logging.getLogger("edgekit.agent")
MAX_LINE = 64 << 10
_READ_SECONDS = 0.1
_WRITE_SECONDS = 5.0


@dataclass(kw_only=True)
class SerialCounts(StreamCounts):
    """`too_long` lines are refused ones too; `opened` counts (re)connects."""

    too_long: int = 0
    opened: int = 0


class SerialStream:
    """One slot's serial line.

    Args:
        host: what computes.
        slot: which slot answers.
        port: ``/dev/ttyUSB0``, or any address pyserial knows.
        baud: of the line.
        form: ``lines`` of text, or ``frames``.
        max_line: longest line in bytes.
        retry_seconds: first pause before opening again; doubles up to ten seconds.
    """

    def __init__(
        self,
        host: ModelHost,
        slot: str,
        port: str,
        baud: int = 115_200,
        *,
        form: str = "lines",
        max_line: int = MAX_LINE,
        retry_seconds: float = 0.5,
    ) -> None:
        self._host, self._slot, self._port, self._baud = host, slot, port, baud
        self._form = form
        self._max_line, self._retry = max_line, retry_seconds
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.counts = SerialCounts()

    def start(self) -> None:
        """Begin in a thread of its own; a port that is not there yet is waited for.

        Raises:
            UnavailableError: pyserial is not installed.
        """
        serial, lost = _library()
        self._thread = threading.Thread(
            target=self._work, args=(serial, lost), name=f"serial-{self._slot}", daemon=True
        )
        self._thread.start()

    def stop(self, *, wait: float = 5.0) -> None:
        """End after the line under way, and close the port."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(wait)
            self._thread = None

    def _work(self, serial: Any, lost: tuple[type[BaseException], ...]) -> None:
        pause = self._retry
        while not self._ending.is_set():
            try:
                with serial.Serial(
                    self._port, self._baud, timeout=_READ_SECONDS, write_timeout=_WRITE_SECONDS
                ) as line:
                    self.counts.opened += 1
                    LOG.info("serial line %s is open for slot %s", self._port, self._slot)
                    pause = self._retry
                    self._serve(line)
            except lost as error:
                LOG.warning("serial line %s: %s; trying again in %.1f s", self._port, error, pause)
                self._ending.wait(pause)
                pause = min(2 * pause, 10.0)

    def _serve(self, line: Any) -> None:
        """Answer until the stream ends; what the port raises goes to `_work`."""
        if self._form == "frames":
            self._serve_frames(line)
            return
        splitter = LineSplitter(self._max_line)
        while not self._ending.is_set():
            data = line.read(min(line.in_waiting, 65_536) or 1)
            for text in splitter.feed(data):
                answer = self._answer(text)
                if answer is not None:
                    line.write(answer + b"\n")

    def _serve_frames(self, line: Any) -> None:
        from edgekit_agent.serving.stream_frames import FrameServer

        server = FrameServer(self._host, self._slot)
        counts, before = self.counts, (self.counts.answered, self.counts.refused)
        while not self._ending.is_set():
            for answer in server.feed(line.read(min(line.in_waiting, 65_536) or 1)):
                line.write(answer)
            counts.answered, counts.refused = before[0] + server.answered, before[1] + server.refused
            counts.received = counts.answered + counts.refused

    def _answer(self, text: bytes | None) -> bytes | None:
        """The answer to one line, None for an empty one; `text` None stands for one that was too long."""
        if text is not None and not text.strip():
            return None
        self.counts.received += 1
        answer, fine = self._computed(text)
        self.counts.answered += fine
        self.counts.refused += not fine
        return answer

    def _computed(self, text: bytes | None) -> tuple[bytes, bool]:
        if text is None:
            self.counts.too_long += 1
            self._host.reject(self._slot, "too_long")
            return malformed(f"at most {self._max_line} bytes a line are allowed", "too_long"), False
        if text.lstrip()[:1] in (b"{", b"["):
            return answer_json(self._host, self._slot, text)
        return answer_csv(self._host, self._slot, text.decode("utf-8", "replace"))


class LineSplitter:
    """Cuts a stream of bytes into lines of at most `limit` bytes, never keeping more than that."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The lines that `data` completes, without their ends; None for each that was too long."""
        lines: list[bytes | None] = []
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            lines.append(None if self._skipping or len(line) > self._limit else line.rstrip(b"\r"))
            self._skipping = False
        if self._skipping or len(rest) > self._limit:
            self._skipping, rest = True, b""
        self._rest = rest
        return lines


def _library() -> tuple[Any, tuple[type[BaseException], ...]]:
    """pyserial, and what it raises when a port is lost."""
    try:
        import serial
    except ImportError as error:
        raise UnavailableError(
            "pyserial is not installed",
            where="stream serial",
            remedy="pip install 'edgekit-agent[serial]'",
            code="serial_missing",
        ) from error
    import termios

    return serial, (OSError, serial.SerialException, termios.error)


__all__ = ["MAX_LINE", "LineSplitter", "SerialCounts", "SerialStream"]
