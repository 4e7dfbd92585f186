"""Stream mode: an MQTT topic's payloads and a serial line, over a real pty pair."""

from __future__ import annotations

import json
import os
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.stream_mqtt import MqttStream
from edgekit_agent.serving.stream_serial import LineSplitter, SerialStream
from tests.agent.models import LABELS, classes_of, installed, samples
from tests.agent.test_serving_host import SlowRuntime
from tests.conftest import FrozenClock

SLOT = "animals"
SAMPLE = samples(1)[0]
LABEL = LABELS[classes_of(samples(1))[0]]


@pytest.fixture
def host(clock: FrozenClock, tmp_path: Path) -> Iterator[ModelHost]:
    made = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    made.switch(SLOT, made.prepare(installed(tmp_path)))
    made.commit(SLOT)
    yield made
    made.close()


def until(fine: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not fine():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


def offline(sent: list[bytes]) -> Callable[[bytes], bool]:
    """A publish that keeps what it is given and says that it could not be sent."""

    def publish(payload: bytes) -> bool:
        sent.append(payload)
        return False

    return publish


# MQTT -------------------------------------------------------------------------------------------


@pytest.fixture
def answers() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def stream(host: ModelHost, answers: list[dict[str, Any]]) -> Iterator[MqttStream]:
    def publish(payload: bytes) -> bool:
        answers.append(json.loads(payload))
        return True

    made = MqttStream(host, SLOT, publish)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": SAMPLE.tolist()},
        {"x": [SAMPLE.tolist()]},
        SAMPLE.tolist(),
        [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": SAMPLE.tolist()}],
    ],
)
def test_each_form_of_a_sample_is_answered(
    stream: MqttStream, answers: list[dict[str, Any]], inputs: Any
) -> None:
    stream.feed(json.dumps({"id": 7, "inputs": inputs}).encode())
    until(lambda: len(answers) == 1)
    [answer] = answers
    assert (answer["id"], answer["model"], answer["version"]) == (7, "animals", "1")
    assert answer["decisions"]["y"]["label"] == LABEL
    assert len(answer["outputs"]["y"]) == 3


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "bad_json"),
        (b"\xff", "bad_json"),
        (b'{"x": 1}', "bad_json"),
        (b'{"inputs": {"x": [NaN, 1, 1, 1]}}', "bad_json"),
        (b'{"inputs": {"z": [1, 1, 1, 1]}}', "bad_inputs"),
        (b'{"inputs": {}}', "bad_inputs"),
        (b'{"inputs": {"x": [1, 1]}}', "bad_shape"),
        (b'{"inputs": {"x": [[1, 1, 1, 1], [1]]}}', "bad_shape"),
        (b'{"inputs": {"x": ["a", "b", "c", "d"]}}', "bad_dtype"),
        (b'{"inputs": null}', "bad_dtype"),
        (b'{"inputs": [{"name": "x"}]}', "bad_request"),
        (b'{"inputs": {"x": [1e300, 1, 1, 1]}}', "not_finite"),
    ],
)
def test_a_malformed_sample_is_answered_with_its_fault_and_counted(
    host: ModelHost, stream: MqttStream, answers: list[dict[str, Any]], payload: bytes, code: str
) -> None:
    stream.feed(payload)
    until(lambda: len(answers) == 1)
    assert answers[0]["code"] == code
    assert stream.counts.refused == 1
    assert host.collect()[0].errors == {f"client:{code}": 1}


def test_a_flood_is_dropped_and_counted_not_kept(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": SlowRuntime()}, threads=1, clock=clock)
    host.switch(SLOT, host.prepare(installed(tmp_path)))
    candidate = host.active(SLOT)
    assert candidate is not None
    session: Any = candidate.session
    session.go.clear()
    sent: list[bytes] = []
    stream = MqttStream(host, SLOT, offline(sent), depth=4)
    stream.start()
    for _ in range(100):
        stream.feed(json.dumps({"inputs": SAMPLE.tolist()}).encode())
    session.go.set()
    until(lambda: stream.counts.answered + stream.counts.dropped == 100)
    stream.stop()
    counts = stream.counts
    assert counts.received == 100
    assert 4 <= counts.answered <= 6
    assert counts.unsent == counts.answered, "what could not be sent is counted too"


def test_a_slot_without_a_model_says_so(clock: FrozenClock) -> None:
    sent: list[bytes] = []
    stream = MqttStream(ModelHost({}, threads=1, clock=clock), SLOT, offline(sent))
    stream.start()
    stream.feed(b'{"id": "a", "inputs": [1]}')
    until(lambda: len(sent) == 1)
    stream.stop()
    assert json.loads(sent[0])["code"] == "unknown_model"
    assert json.loads(sent[0])["id"] == "a"


# serial -----------------------------------------------------------------------------------------


class Line:
    """The far end of a pty whose near end is the agent's serial port, under a name that stays."""

    def __init__(self, name: Path) -> None:
        self.name = name
        self._rest = b""
        self.open()

    def open(self) -> None:
        self.master, near = os.openpty()
        tty.setraw(near)
        self._near = near
        self.name.unlink(missing_ok=True)
        self.name.symlink_to(os.ttyname(near))

    def let_go(self) -> None:
        """Leave only the agent's side open."""
        os.close(self._near)

    def vanish(self) -> None:
        os.close(self.master)
        self.name.unlink()

    def write(self, data: bytes) -> None:
        os.write(self.master, data)

    def read_line(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            self._rest += os.read(self.master, 65_536)
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "ttyTEST")
    yield made
    os.close(made.master)


@pytest.fixture
def serial(host: ModelHost, line: Line) -> Iterator[SerialStream]:
    made = SerialStream(host, SLOT, str(line.name), max_line=200, retry_seconds=0.05)
    made.start()
    until(lambda: made.counts.opened == 1)
    line.let_go()
    yield made
    made.stop()


def csv(values: Any) -> bytes:
    return ",".join(str(value) for value in values).encode()


def test_a_csv_line_and_a_json_line_get_one_json_line_each(serial: SerialStream, line: Line) -> None:
    line.write(csv(SAMPLE) + b"\r\n")
    assert line.read_line()["decisions"]["y"]["label"] == LABEL
    line.write(json.dumps({"id": "b", "inputs": {"x": SAMPLE.tolist()}}).encode() + b"\n")
    answer = line.read_line()
    assert (answer["id"], answer["decisions"]["y"]["label"]) == ("b", LABEL)
    assert serial.counts.answered == 2


def test_a_line_in_pieces_and_lines_in_one_piece(serial: SerialStream, line: Line) -> None:
    whole = csv(SAMPLE) + b"\n"
    for byte in whole:
        line.write(bytes([byte]))
    assert "outputs" in line.read_line()
    line.write(whole * 5 + b"\n\r\n")
    for _ in range(5):
        assert "outputs" in line.read_line()
    assert serial.counts.received == 6


def test_malformed_and_over_long_lines_get_an_error_line_and_the_next_is_fine(
    serial: SerialStream, line: Line, host: ModelHost
) -> None:
    for bad, code in (
        (b"hello", "bad_csv"),
        (b"1,,2,3", "bad_csv"),
        (b"1,2", "bad_shape"),
        (b"nan,0,0,0", "not_finite"),
        (b'{"inputs": ', "bad_json"),
        (b"\x00\xff\xfe", "bad_csv"),
        (b"1," * 5000 + b"1", "too_long"),
    ):
        line.write(bad + b"\n")
        answer = line.read_line()
        assert answer["code"] == code, bad
        assert answer["error"]
    line.write(csv(SAMPLE) + b"\n")
    assert "outputs" in line.read_line()
    counts = serial.counts
    assert (counts.refused, counts.too_long, counts.answered) == (7, 1, 1)
    assert sum(host.collect()[0].errors.values()) == 7


def test_a_port_that_vanishes_is_opened_again(serial: SerialStream, line: Line) -> None:
    line.write(csv(SAMPLE) + b"\n")
    assert "outputs" in line.read_line()
    line.vanish()
    time.sleep(0.3)
    line.open()
    until(lambda: serial.counts.opened >= 2)
    line.let_go()
    line.write(csv(SAMPLE) + b"\n")
    assert "outputs" in line.read_line()


def test_a_port_that_is_not_there_yet_is_waited_for(host: ModelHost, tmp_path: Path) -> None:
    stream = SerialStream(host, SLOT, str(tmp_path / "later"), retry_seconds=0.05)
    stream.start()
    time.sleep(0.2)
    line = Line(tmp_path / "later")
    until(lambda: stream.counts.opened == 1)
    line.let_go()
    line.write(csv(SAMPLE) + b"\n")
    assert "outputs" in line.read_line()
    stream.stop()
    os.close(line.master)
    assert not any(thread.name.startswith("serial-") for thread in threading.enumerate())


@given(st.lists(st.binary(max_size=30)), st.integers(1, 20))
def test_lines_come_out_the_same_however_the_bytes_are_cut(pieces: list[bytes], limit: int) -> None:
    data = b"".join(pieces)
    splitter = LineSplitter(limit)
    found = [line for piece in pieces for line in splitter.feed(piece)]
    whole = LineSplitter(limit).feed(data)
    assert found == whole
    assert len(whole) == data.count(b"\n")
    assert all(line is None or len(line) <= limit for line in whole)
