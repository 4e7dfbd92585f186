"""Frames, the client against devices that lie, and the agent's own line that answers in frames."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import OperationTimeout, RefusedError, UnavailableError
from edgekit_agent.errors import ModelError, RequestError
from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.frames import (
    ANSWER,
    Broken,
    Fault,
    Frame,
    FrameReader,
    Kind,
    cobs,
    decode,
    encode,
    error,
    uncobs,
)
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.serial_client import SerialModel, open_serial
from edgekit_agent.serving.stream_frames import FrameServer
from edgekit_agent.serving.stream_serial import SerialStream
from tests.agent.models import classes_of, installed, samples
from tests.agent.test_stream_lines import Line, until
from tests.conftest import FrozenClock

SLOT = "animals"


@given(st.binary(max_size=1200))
def test_what_is_coded_has_no_zero_and_comes_back(data: bytes) -> None:
    coded = cobs(data)
    assert 0 not in coded
    assert uncobs(coded) == data
    assert len(coded) <= len(data) + len(data) // 254 + 1


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    reader = FrameReader(64)
    found = [*reader.feed(data), *reader.feed(b"\0" + encode(Kind.READ, 5, b"abc"))]
    assert found[-1] == Frame(kind=Kind.READ, sequence=5, payload=b"abc")
    assert all(isinstance(item, Broken) for item in found[:-1])


@given(st.lists(st.binary(max_size=64), max_size=6), st.integers(1, 50))
def test_a_stream_in_pieces_of_any_size_gives_the_same_frames(payloads: list[bytes], size: int) -> None:
    stream = b"".join(encode(Kind.WRITE, 1 + n, item) for n, item in enumerate(payloads))
    reader = FrameReader(64)
    found = [item for at in range(0, len(stream), size) for item in reader.feed(stream[at : at + size])]
    assert found == [Frame(kind=Kind.WRITE, sequence=1 + n, payload=item) for n, item in enumerate(payloads)]


def test_a_frame_without_end_is_not_kept() -> None:
    reader = FrameReader(64)
    assert not any(reader.feed(b"\x01" * 10_000) for _ in range(100))
    assert reader.feed(b"\0") == [Broken(fault=Fault.TOO_LONG, why="the frame is too long")]
    assert len(reader.feed(encode(Kind.READ, 5))) == 1


# the client --------------------------------------------------------------------------------------


ABOUT = {
    "protocol": 1,
    "payload": 64,
    "model": "m@1",
    "variant": "v",
    "digest": "ab" * 32,
    "inputs": [{"name": "x", "dtype": "int8", "shape": [1, 4], "scale": 0.5, "zero_point": 1}],
    "outputs": [{"name": "y", "dtype": "int8", "shape": [1, 2], "scale": 0.25, "zero_point": 0}],
}


class Fake:
    """A device behind a line; `answer` says what it sends for a request. Time is reads."""

    def __init__(self, answer: Callable[[Frame], bytes]) -> None:
        self._answer, self._reader, self._out = answer, FrameReader(65_000), b""
        self.asked: list[Frame] = []
        self.now = 0.0

    def write(self, data: bytes) -> None:
        for item in self._reader.feed(data):
            assert isinstance(item, Frame)
            self.asked.append(item)
            self._out += self._answer(item)

    def read(self, size: int = 1) -> bytes:
        self.now += 0.01
        found, self._out = self._out[:size], self._out[size:]
        return found


def honest(frame: Frame, about: Any = ABOUT) -> bytes:
    text = json.dumps(about).encode() if not isinstance(about, bytes) else about
    answers = {
        Kind.DESCRIBE: struct.pack("<I", len(text))
        + frame.payload
        + text[struct.unpack_from("<I", frame.payload.ljust(4))[0] :][:56],
        Kind.WRITE: struct.pack("<I", 4),
        Kind.INVOKE: b"",
        Kind.READ: b"\x04\xfc",
    }
    return encode(frame.kind | ANSWER, frame.sequence, answers[Kind(frame.kind)])


def connect(answer: Callable[[Frame], bytes], **options: Any) -> tuple[SerialModel, Fake]:
    line = Fake(answer)
    return SerialModel(line, timeout=0.1, monotonic=lambda: line.now, **options), line


def test_real_numbers_are_quantized_for_the_device_and_back() -> None:
    device, line = connect(honest)
    assert device.run({"x": [[0.5, -0.5, 1e9, 0.26]]})["y"].tolist() == [[1.0, -1.0]]
    [written] = [frame.payload for frame in line.asked if frame.kind == Kind.WRITE]
    assert np.frombuffer(written[5:], np.int8).tolist() == [2, 0, 127, 2]
    [invoked] = [frame.payload for frame in line.asked if frame.kind == Kind.INVOKE]
    assert invoked == b"\xab" * 8


def test_answers_to_older_requests_are_not_taken_for_this_one() -> None:
    def late(frame: Frame) -> bytes:
        old = encode(frame.kind | ANSWER, (frame.sequence - 1) or 65_535, b"\x55\x55")
        return old + error(Fault.FAILED, 0, "noise") + honest(frame)

    device, _ = connect(late)
    assert device.run({"x": np.zeros((1, 4))})["y"].tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize(
    "about",
    [
        b"not json",
        b"[]",
        {**ABOUT, "payload": 0},
        {**ABOUT, "payload": 1 << 30},
        {**ABOUT, "digest": "xy"},
        {**ABOUT, "inputs": [{"name": "x", "dtype": "object", "shape": [1]}]},
        {**ABOUT, "inputs": [{"name": "x", "dtype": "int8", "shape": [1 << 40]}]},
        {**ABOUT, "outputs": [{"name": "y", "dtype": "int8", "shape": [-1]}]},
    ],
)
def test_a_description_that_cannot_be_true_is_refused(about: Any) -> None:
    with pytest.raises(UnavailableError) as caught:
        connect(lambda frame: honest(frame, about))
    assert caught.value.code == "bad_answer"


def test_an_endless_description_is_not_read_for_ever() -> None:
    def endless(frame: Frame) -> bytes:
        return encode(frame.kind | ANSWER, frame.sequence, b"\xff" * 4 + frame.payload + b"x" * 2_000)

    with pytest.raises(UnavailableError):
        connect(endless)


def test_an_output_of_another_size_is_refused() -> None:
    def short(frame: Frame) -> bytes:
        return (
            encode(frame.kind | ANSWER, frame.sequence, b"\1") if frame.kind == Kind.READ else honest(frame)
        )

    device, _ = connect(short)
    with pytest.raises(UnavailableError) as caught:
        device.run({"x": np.zeros(4)})
    assert caught.value.code == "bad_answer"


def test_a_device_that_falls_silent_is_asked_as_often_as_said_and_no_more() -> None:
    device, line = connect(lambda frame: b"" if frame.kind == Kind.INVOKE else honest(frame), attempts=4)
    with pytest.raises(OperationTimeout) as caught:
        device.run({"x": np.zeros(4)})
    assert caught.value.exit_code == 4
    assert len([frame for frame in line.asked if frame.kind == Kind.INVOKE]) == 4


def test_another_model_since_it_was_described_is_refused() -> None:
    def swapped(frame: Frame) -> bytes:
        changed = error(Fault.WRONG_MODEL, frame.sequence, "another model runs here")
        return changed if frame.kind == Kind.INVOKE else honest(frame)

    device, _ = connect(swapped)
    with pytest.raises(RefusedError) as caught:
        device.run({"x": np.zeros(4)})
    assert caught.value.code == "wrong_model"


def test_a_port_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        open_serial(str(tmp_path / "none"))
    assert caught.value.code == "serial_port"


# the agent's own line ------------------------------------------------------------------------------


@pytest.fixture
def host(clock: FrozenClock, tmp_path: Path) -> Iterator[ModelHost]:
    made = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    made.switch(SLOT, made.prepare(installed(tmp_path)))
    made.commit(SLOT)
    yield made
    made.close()


class Direct:
    """A line to a `FrameServer`, without any line."""

    def __init__(self, server: FrameServer) -> None:
        self._server, self._out = server, b""

    def write(self, data: bytes) -> None:
        self._out += b"".join(self._server.feed(data))

    def read(self, size: int = 1) -> bytes:
        found, self._out = self._out[:size], self._out[size:]
        return found


def test_the_agent_answers_the_same_client_as_a_microcontroller(host: ModelHost) -> None:
    device = SerialModel(Direct(FrameServer(host, SLOT)))
    candidate = host.active(SLOT)
    assert candidate is not None
    assert device.description.model == candidate.installed.ref
    for row in samples(5):
        answer = device.run({"x": np.asarray([row], np.float32)})
        assert [int(np.argmax(answer["y"]))] == classes_of(np.asarray([row]))


def test_what_the_model_refuses_is_told_and_counted(host: ModelHost) -> None:
    server = FrameServer(host, SLOT)
    line = Direct(server)
    device = SerialModel(line)
    bad = np.array([np.nan, 0, 0, 0], "<f4").tobytes()
    digest = bytes.fromhex(device.description.digest)[:8]
    line.write(encode(Kind.WRITE, 100, struct.pack("<BI", 0, 0) + bad) + encode(Kind.INVOKE, 101, digest))
    *_, told = FrameReader(65_000).feed(line.read(4096))
    assert isinstance(told, Frame)
    assert (told.kind, told.payload[0]) == (Kind.ERROR, Fault.BAD_REQUEST)
    assert (server.answered, server.refused) == (0, 1)


def test_a_swap_between_description_and_invoke_is_refused_then_described_anew(
    host: ModelHost, tmp_path: Path
) -> None:
    device = SerialModel(Direct(FrameServer(host, SLOT)))
    host.switch(SLOT, host.prepare(installed(tmp_path / "second", gain=2.0)))
    with pytest.raises(RefusedError) as caught:
        device.run({"x": np.zeros((1, 4), np.float32)})
    assert caught.value.code == "wrong_model"


def test_an_empty_slot_says_so(clock: FrozenClock) -> None:
    with pytest.raises(ModelError, match="serves nothing"):
        SerialModel(Direct(FrameServer(ModelHost({}, threads=1, clock=clock), SLOT)))


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (encode(0x33, 1), Fault.UNKNOWN_TYPE),
        (encode(Kind.WRITE, 1, struct.pack("<BI", 7, 0)), Fault.BAD_REQUEST),
        (encode(Kind.WRITE, 1, struct.pack("<BI", 0, 3) + b"x"), Fault.BAD_REQUEST),
        (encode(Kind.READ, 1, struct.pack("<BIH", 0, 0, 1)), Fault.NO_RESULT),
        (encode(Kind.INVOKE, 1, b"12345678"), Fault.WRONG_MODEL),
        (encode(Kind.DESCRIBE, 1, b"\xff" * 4), Fault.BAD_REQUEST),
        (b"noise\0", Fault.BAD_FRAME),
    ],
)
def test_a_request_that_makes_no_sense_is_told_so(host: ModelHost, request_: bytes, fault: Fault) -> None:
    [answer] = FrameServer(host, SLOT).feed(request_)
    found = decode(answer.rstrip(b"\0"))
    assert isinstance(found, Frame)
    assert (found.kind, found.payload[0]) == (Kind.ERROR, fault)


def test_frames_over_a_real_pty_through_the_agents_stream(host: ModelHost, tmp_path: Path) -> None:
    pytest.importorskip("serial", reason="pyserial is not installed")
    line = Line(tmp_path / "ttyTEST")
    stream = SerialStream(host, SLOT, str(line.name), form="frames", retry_seconds=0.05)
    stream.start()
    until(lambda: stream.counts.opened == 1)
    line.let_go()

    class Master:
        def write(self, data: bytes) -> None:
            os.write(line.master, data)

        def read(self, size: int = 1) -> bytes:
            return os.read(line.master, size)

    device = SerialModel(Master(), timeout=5)
    [row] = samples(1)
    answer = device.run({"x": np.asarray([row], np.float32)})
    assert [int(np.argmax(answer["y"]))] == classes_of(np.asarray([row]))
    until(lambda: stream.counts.answered == 1)
    stream.stop()
    os.close(line.master)


def test_a_name_that_the_device_does_not_have_is_refused() -> None:
    device, _ = connect(honest)
    with pytest.raises(RequestError):
        device.run({"picture": np.zeros(4)})
