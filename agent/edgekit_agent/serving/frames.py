"""Frames on a serial line: coded, cut out of a stream of bytes, and checked. Specification: docs/serial.md.

Pure: no line, no time. The other side in C is ``ek_serial.c`` of the target c99; `serial_client` asks
with these frames, `stream_frames` answers with them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"EK"
VERSION = 1
_HEAD = struct.Struct("<2sBBHH")
_CRC = struct.Struct("<I")
OVERHEAD = _HEAD.size + _CRC.size


class Kind(IntEnum):
    """Requests; an answer has `ANSWER` added."""

    DESCRIBE = 0x01
    WRITE = 0x02
    INVOKE = 0x03
    READ = 0x04
    ERROR = 0xFF


ANSWER = 0x80


class Fault(IntEnum):
    """What an error frame says."""

    BAD_FRAME = 1
    BAD_CRC = 2
    TOO_LONG = 3
    BAD_VERSION = 4
    UNKNOWN_TYPE = 5
    BAD_REQUEST = 6
    INCOMPLETE_INPUT = 7
    WRONG_MODEL = 8
    NO_RESULT = 9
    FAILED = 10


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message. `sequence` is the request's, 0 in an answer to what was no frame."""

    kind: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Bytes between two zeros that are no frame, and why."""

    fault: Fault
    why: str
    sequence: int = 0


def encode(kind: int, sequence: int, payload: bytes = b"") -> bytes:
    """The bytes on the line, the ending zero included."""
    body = _HEAD.pack(MAGIC, VERSION, kind, sequence, len(payload)) + payload
    return cobs(body + _CRC.pack(zlib.crc32(body))) + b"\0"


def error(fault: Fault, sequence: int, text: str) -> bytes:
    """An error frame."""
    return encode(Kind.ERROR, sequence, bytes([fault]) + text.encode())


def cobs(data: bytes) -> bytes:
    """`data` without zeros: each block is its length plus one, then bytes; a zero is between two blocks."""
    blocks = []
    for part in data.split(b"\0"):
        while len(part) >= 254:
            blocks.append(b"\xff" + part[:254])
            part = part[254:]
        blocks.append(bytes([len(part) + 1]) + part)
    return b"".join(blocks)


def uncobs(data: bytes) -> bytes | None:
    """What `cobs` coded, None for what it never gives."""
    out = bytearray()
    at = 0
    while at < len(data):
        size = data[at]
        if size == 0 or at + size > len(data):
            return None
        out += data[at + 1 : at + size]
        at += size
        if size < 255 and at < len(data):
            out.append(0)
    return bytes(out)


def decode(coded: bytes) -> Frame | Broken:
    """One frame, of what stands between two zeros."""
    body = uncobs(coded)
    if body is None or len(body) < OVERHEAD or not body.startswith(MAGIC):
        return Broken(fault=Fault.BAD_FRAME, why="not a frame")
    _, version, kind, sequence, length = _HEAD.unpack_from(body)
    if _CRC.unpack(body[-4:])[0] != zlib.crc32(body[:-4]):
        return Broken(fault=Fault.BAD_CRC, why="the CRC differs")
    if version != VERSION:
        return Broken(fault=Fault.BAD_VERSION, why=f"version {VERSION} is spoken here", sequence=sequence)
    if length != len(body) - OVERHEAD:
        return Broken(fault=Fault.BAD_FRAME, why="the length differs", sequence=sequence)
    return Frame(kind=kind, sequence=sequence, payload=body[_HEAD.size : -4])


class FrameReader:
    """Cuts a stream of bytes into frames; keeps at most what a frame of `payload` bytes takes."""

    def __init__(self, payload: int) -> None:
        size = payload + OVERHEAD
        self._limit = size + size // 254 + 1
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[Frame | Broken]:
        """What `data` completes."""
        found: list[Frame | Broken] = []
        *whole, rest = (self._rest + data).split(b"\0")
        for coded in whole:
            if self._skipping or len(coded) > self._limit:
                found.append(Broken(fault=Fault.TOO_LONG, why="the frame is too long"))
            elif coded:
                found.append(decode(coded))
            self._skipping = False
        if self._skipping or len(rest) > self._limit:
            self._skipping, rest = True, b""
        self._rest = rest
        return found


__all__ = [
    "ANSWER",
    "MAGIC",
    "OVERHEAD",
    "VERSION",
    "Broken",
    "Fault",
    "Frame",
    "FrameReader",
    "Kind",
    "cobs",
    "decode",
    "encode",
    "error",
    "uncobs",
]
