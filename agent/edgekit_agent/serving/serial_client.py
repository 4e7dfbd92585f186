"""Asking a model on the other end of a serial line: a microcontroller with our C99, or another agent.

Tensors travel in pieces of at most what the device takes. A request that is not answered in time, or
comes back damaged, is sent again under its own number; what a device refuses is not. `open_serial` needs
pyserial; a `SerialModel` takes any line that reads and writes. Specification: docs/serial.md.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgekit.errors import OperationTimeout, RefusedError, UnavailableError
from edgekit_agent.errors import ModelError, RequestError
from edgekit_agent.serving.frames import ANSWER, Broken, Fault, Frame, FrameReader, Kind, encode

LARGEST = 65_000
"""Payload of the frames that are taken; a device says how much it takes itself."""
_FIRST = 64
"""Payload that every device takes."""
_DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "bool")


class Line(Protocol):
    """A serial line, as pyserial has it: `read` gives what came in a short time, perhaps nothing."""

    def read(self, size: int = 1) -> bytes: ...

    def write(self, data: bytes) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Port:
    """A tensor of the device. With `scale` it holds integers that stand for real numbers."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0

    def pack(self, values: Any) -> bytes:
        """Real numbers, or the integers themselves, as the device's bytes.

        Raises:
            RequestError: another number of values, or no finite numbers.
        """
        array = np.asarray(values)
        if array.size != int(np.prod(self.shape)):
            raise RequestError(
                f"{array.size} values were given, {list(self.shape)} are expected",
                where=self.name,
                code="bad_shape",
            )
        if not np.isfinite(array.astype(np.float64)).all():
            raise RequestError("values that are no finite numbers", where=self.name, code="not_finite")
        if self.scale is not None and array.dtype.kind == "f":
            limits = np.iinfo(self.dtype)
            whole = np.rint(array.astype(np.float64) / self.scale) + self.zero_point
            array = np.clip(whole, limits.min, limits.max)
        return array.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()

    def unpack(self, data: bytes) -> Any:
        """The device's bytes as what the port holds."""
        found = np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<"))
        return found.reshape(self.shape).astype(self.dtype)

    def real(self, values: Any) -> Any:
        """The port's integers as real numbers (float32); what stands for itself stays."""
        if self.scale is None:
            return values
        return ((values.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the device says it is: ``name@version``, the variant and its digest (hexadecimal or empty)."""

    model: str
    variant: str
    digest: str
    payload: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class SerialModel:
    """A model behind a line.

    Args:
        line: the line, open.
        timeout: seconds that one answer may take.
        attempts: how often a request is sent before the device counts as silent.
        digest: the variant that must be there, in hexadecimal; None for any.
        monotonic: the clock.

    Raises:
        OperationTimeout: nothing answers.
        RefusedError: another variant is there (``wrong_model``).
        UnavailableError: the line is lost, or what answers does not speak this protocol.
    """

    def __init__(
        self,
        line: Line,
        *,
        timeout: float = 2.0,
        attempts: int = 3,
        digest: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line, self._timeout, self._attempts, self._now = line, timeout, attempts, monotonic
        self._reader = FrameReader(LARGEST)
        self.sequence = 0
        """Number of the last request."""
        self.description = self._describe()
        if digest is not None and self.description.digest != digest:
            there = self.description.digest or "unknown"
            raise RefusedError(
                f"the device runs {self.description.model}, digest {there[:16]}, not {digest[:16]}",
                remedy="flash the variant that is meant",
                code="wrong_model",
            )

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs for one sample: floats are quantized and back as the ports say.

        Raises:
            RequestError: a name or shape that does not fit.
            ModelError: the device failed while computing.
            OperationTimeout: it does not answer.
            RefusedError: the device has another model by now.
        """
        found = self.raw(inputs)
        return {port.name: port.real(found[port.name]) for port in self.description.outputs}

    def raw(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """As `run`, with the integers of the device's ports as outputs."""
        about = self.description
        if set(inputs) != {port.name for port in about.inputs}:
            wanted = ", ".join(port.name for port in about.inputs)
            raise RequestError(f"inputs {wanted} are expected, not {', '.join(sorted(inputs)) or 'none'}")
        packed = [port.pack(inputs[port.name]) for port in about.inputs]
        for place, data in enumerate(packed):
            self._write(place, data)
        self._ask(Kind.INVOKE, bytes.fromhex(about.digest)[:8].ljust(8, b"\0"))
        return {
            port.name: port.unpack(self._read(place, _size(port))) for place, port in enumerate(about.outputs)
        }

    def _write(self, place: int, data: bytes) -> None:
        room = self.description.payload - 5
        for start in range(0, len(data), room):
            self._ask(Kind.WRITE, struct.pack("<BI", place, start) + data[start : start + room])

    def _read(self, place: int, size: int) -> bytes:
        room, found = self.description.payload, b""
        while len(found) < size:
            want = min(room, size - len(found))
            part = self._ask(Kind.READ, struct.pack("<BIH", place, len(found), want))
            if len(part) != want:
                raise UnavailableError("an output came in another size", code="bad_answer")
            found += part
        return found

    def _describe(self) -> Description:
        text, total = b"", 1
        while len(text) < total:
            answer = self._ask(Kind.DESCRIBE, struct.pack("<I", len(text)))
            if len(answer) <= 8 or struct.unpack_from("<I", answer, 4)[0] != len(text):
                raise UnavailableError("the description came in pieces that do not fit", code="bad_answer")
            total = min(struct.unpack_from("<I", answer)[0], 1 << 20)
            text += answer[8:]
        return _description(text)

    def _ask(self, kind: Kind, payload: bytes) -> bytes:
        """The answer's payload; sent again when it does not come or comes back damaged.

        The zero before it ends whatever half a frame the device holds.
        """
        self.sequence = self.sequence % 65_535 + 1
        for _ in range(self._attempts):
            answer = self._exchange(b"\0" + encode(kind, self.sequence, payload))
            if answer is not None and answer.kind == Kind.ERROR:
                raise _refusal(answer)
            if answer is not None and answer.kind == kind | ANSWER:
                return answer.payload
        raise OperationTimeout(
            f"the device does not answer: {self._attempts} attempts of {self._timeout:g} s",
            remedy="check the cable, the port and its speed",
            code="serial_silent",
        )

    def _exchange(self, request: bytes) -> Frame | None:
        try:
            self._line.write(request)
            return self._await()
        except OSError as error:  # pyserial's own errors are OSErrors
            raise UnavailableError(f"the line is lost: {error}", code="serial_lost") from error

    def _await(self) -> Frame | None:
        """The frame with the number asked for; None in time, or when the device got a broken one."""
        end = self._now() + self._timeout
        while self._now() < end:
            for item in self._reader.feed(self._line.read(256)):
                if isinstance(item, Broken):
                    continue  # noise, or a damaged answer: the time decides
                if item.sequence == self.sequence:
                    return item
                if item.kind == Kind.ERROR and item.sequence == 0 and item.payload[:1] in _DAMAGED:
                    return None
        return None


_DAMAGED = tuple(bytes([fault]) for fault in (Fault.BAD_FRAME, Fault.BAD_CRC, Fault.TOO_LONG))


def _refusal(frame: Frame) -> RefusedError | RequestError | ModelError | UnavailableError:
    code = frame.payload[0] if frame.payload else 0
    text = frame.payload[1:].decode("utf-8", "replace")
    if code == Fault.WRONG_MODEL:
        return RefusedError(f"the device refuses: {text}", code="wrong_model")
    if code == Fault.FAILED:
        return ModelError(f"the device failed: {text}")
    if code in (Fault.BAD_REQUEST, Fault.INCOMPLETE_INPUT, Fault.NO_RESULT):
        return RequestError(f"the device refuses: {text}", code=Fault(code).name.lower())
    return UnavailableError(f"the device answers with error {code}: {text}", code="bad_answer")


def _size(port: Port) -> int:
    return int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize


def _description(text: bytes) -> Description:
    try:
        value = json.loads(text)
        found = Description(
            model=str(value["model"]),
            variant=str(value["variant"]),
            digest=bytes.fromhex(value["digest"]).hex(),
            payload=int(value["payload"]),
            inputs=tuple(_port(item) for item in value["inputs"]),
            outputs=tuple(_port(item) for item in value["outputs"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UnavailableError(
            f"the device's description cannot be read: {error}", code="bad_answer"
        ) from error
    if not _FIRST <= found.payload <= LARGEST:
        raise UnavailableError(f"the device takes {found.payload} bytes a frame", code="bad_answer")
    return found


def _port(value: Mapping[str, Any]) -> Port:
    dtype, shape = str(value["dtype"]), tuple(int(size) for size in value["shape"])
    if dtype not in _DTYPES or any(size < 1 for size in shape) or np.prod(shape, dtype=float) > 1 << 28:
        raise ValueError(f"port of type {dtype}, shape {list(shape)}")
    scale = value.get("scale")
    return Port(
        name=str(value["name"]),
        dtype=dtype,
        shape=shape,
        scale=None if scale is None else float(scale),
        zero_point=int(value.get("zero_point", 0)),
    )


def open_serial(port: str, baud: int = 115_200) -> Any:
    """A line by its name, such as ``/dev/ttyUSB0``; any address pyserial knows. Close it in the end.

    Raises:
        UnavailableError: pyserial is not installed, or the port cannot be opened.
    """
    try:
        import serial
    except ImportError as error:
        raise UnavailableError(
            "pyserial is not installed", remedy="pip install 'edgekit-agent[serial]'", code="serial_missing"
        ) from error
    try:
        return serial.serial_for_url(port, baud, timeout=0.02, write_timeout=5.0)
    except (OSError, ValueError) as error:  # pyserial's own error is an OSError
        raise UnavailableError(
            f"the port cannot be opened: {error}", where=port, code="serial_port"
        ) from error


__all__ = ["Description", "Line", "Port", "SerialModel", "open_serial"]
