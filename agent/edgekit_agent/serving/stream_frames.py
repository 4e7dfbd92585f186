"""Frames on the agent's own serial line: a slot answers as a microcontroller with our C99 does.

The same protocol and the same client (`serial_client`); tensors are the contract's, a batch of one, real
numbers. Bytes in, bytes out; the line belongs to `stream_serial`. Specification: docs/serial.md.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import EdgekitError
from edgekit.package import Tensor
from edgekit_agent.errors import RequestError
from edgekit_agent.serving.frames import ANSWER, Broken, Fault, Frame, FrameReader, Kind, encode, error
from edgekit_agent.serving.host import ModelHost

if TYPE_CHECKING:
    from edgekit_agent.installed import Installed

PAYLOAD = 4096
_MOST = 64 << 20
"""Bytes of all inputs together."""


class FrameServer:
    """One line's state: what is served, what was written of its inputs, what was computed last.

    `refused` and `answered` count samples, not frames.
    """

    def __init__(self, host: ModelHost, slot: str) -> None:
        self._host, self._slot = host, slot
        self._reader = FrameReader(PAYLOAD)
        self._text = b""
        self._serves: Installed | None = None
        self._inputs: list[bytearray] = []
        self._filled: list[int] = []
        self._outputs: list[bytes] | None = None
        self._invoked = 0
        self.answered = self.refused = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The answers to the frames that `data` completes."""
        for item in self._reader.feed(data):
            if isinstance(item, Broken):
                yield error(item.fault, item.sequence, item.why)
                continue
            try:
                yield encode(item.kind | ANSWER, item.sequence, self._answer(item))
            except _Told as told:
                yield error(told.fault, item.sequence, str(told)[:200])

    def _answer(self, frame: Frame) -> bytes:
        if frame.kind == Kind.DESCRIBE:
            return self._describe(frame.payload)
        if frame.kind not in (Kind.WRITE, Kind.INVOKE, Kind.READ):
            raise _Told(Fault.UNKNOWN_TYPE, "no such request")
        if self._serves is None:
            self._begin()
        if frame.kind == Kind.INVOKE:
            return self._invoke(frame.payload, frame.sequence)
        return (self._write if frame.kind == Kind.WRITE else self._read)(frame.payload)

    def _begin(self) -> None:
        """Serve what the slot serves now; what was written before is forgotten."""
        candidate = self._host.active(self._slot)
        if candidate is None:
            raise _Told(Fault.FAILED, f"slot {self._slot} serves nothing")
        found = candidate.installed
        if self._serves is None or self._serves.variant.digest != found.variant.digest:
            self._serves = found
            sizes = [_size(item) for item in found.variant.inputs]
            if sum(sizes) > _MOST:
                raise _Told(Fault.FAILED, "its inputs are too large for a serial line")
            self._inputs, self._filled = [bytearray(size) for size in sizes], [0] * len(sizes)
            self._outputs = None
            self._text = json.dumps(_about(found)).encode()

    def _describe(self, payload: bytes) -> bytes:
        self._begin()
        if len(payload) != 4 or (offset := struct.unpack("<I", payload)[0]) > len(self._text):
            raise _Told(Fault.BAD_REQUEST, "describe: an offset within the text")
        part = self._text[offset : offset + PAYLOAD - 8]
        return struct.pack("<II", len(self._text), offset) + part

    def _write(self, payload: bytes) -> bytes:
        if len(payload) < 5 or payload[0] >= len(self._inputs):
            raise _Told(Fault.BAD_REQUEST, "write: no such input")
        place, offset = struct.unpack_from("<BI", payload)
        data, room = payload[5:], self._inputs[place]
        if offset > self._filled[place] or offset + len(data) > len(room):
            raise _Told(Fault.BAD_REQUEST, "write: outside of the input, or a gap")
        room[offset : offset + len(data)] = data
        self._filled[place] = offset + len(data)
        self._outputs = None
        return struct.pack("<I", self._filled[place])

    def _invoke(self, payload: bytes, sequence: int) -> bytes:
        serves = self._serves
        assert serves is not None
        active = self._host.active(self._slot)
        if len(payload) != 8:
            raise _Told(Fault.BAD_REQUEST, "invoke: eight bytes of the digest")
        if active is None or payload != _digest(active.installed)[:8] or active.installed != serves:
            self._serves = None
            raise _Told(Fault.WRONG_MODEL, "another model runs here")
        if self._outputs is not None and self._invoked == sequence:
            return b""
        if any(there != len(room) for there, room in zip(self._filled, self._inputs, strict=True)):
            raise _Told(Fault.INCOMPLETE_INPUT, "an input is not whole")
        self._filled = [0] * len(self._filled)
        self._outputs, self._invoked = self._computed(serves), sequence
        return b""

    def _computed(self, serves: Installed) -> list[bytes]:
        arrays = {
            item.name: np.frombuffer(bytes(data), _wire(item)).reshape(_shape(item)).astype(item.dtype)
            for item, data in zip(serves.variant.inputs, self._inputs, strict=True)
        }
        try:
            outputs = self._host.infer(self._slot, arrays).outputs
        except EdgekitError as problem:
            self.refused += 1
            fault = Fault.BAD_REQUEST if isinstance(problem, RequestError) else Fault.FAILED
            raise _Told(fault, problem.message) from problem
        self.answered += 1
        return [
            np.asarray(outputs[item.name]).astype(_wire(item)).tobytes() for item in serves.variant.outputs
        ]

    def _read(self, payload: bytes) -> bytes:
        if len(payload) != 7:
            raise _Told(Fault.BAD_REQUEST, "read: output, offset and count")
        place, offset, count = struct.unpack("<BIH", payload)
        if self._outputs is None:
            raise _Told(Fault.NO_RESULT, "nothing was computed since the last write")
        if place >= len(self._outputs) or count > PAYLOAD or offset + count > len(self._outputs[place]):
            raise _Told(Fault.BAD_REQUEST, "read: outside of the output")
        found: bytes = self._outputs[place][offset : offset + count]
        return found


class _Told(Exception):
    """A request that gets an error frame."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


def _shape(item: Tensor) -> Sequence[int]:
    """A batch of one; a free axis counts as one element."""
    return [1 if size < 0 else size for size in item.shape]


def _wire(item: Tensor) -> Any:
    return np.dtype(item.dtype).newbyteorder("<")


def _size(item: Tensor) -> int:
    return int(np.prod(_shape(item))) * np.dtype(item.dtype).itemsize


def _digest(installed: Installed) -> bytes:
    return bytes.fromhex(installed.variant.digest.rpartition(":")[2])


def _about(installed: Installed) -> dict[str, Any]:
    variant = installed.variant
    return {
        "protocol": 1,
        "payload": PAYLOAD,
        "model": installed.ref,
        "variant": variant.id,
        "digest": _digest(installed).hex(),
        "inputs": [_port(item) for item in variant.inputs],
        "outputs": [_port(item) for item in variant.outputs],
    }


def _port(item: Tensor) -> dict[str, Any]:
    return {"name": item.name, "dtype": item.dtype, "shape": list(_shape(item))}


__all__ = ["PAYLOAD", "FrameServer"]
