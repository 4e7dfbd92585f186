"""The C side of the serial line: a program of this computer behind a pty, and every way a line goes wrong."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import OperationTimeout, RefusedError, UnavailableError
from edgekit_agent.cli import main
from edgekit_agent.errors import RequestError
from edgekit_agent.serving.frames import ANSWER, Broken, Fault, Frame, FrameReader, Kind, cobs, encode
from edgekit_agent.serving.serial_client import SerialModel, open_serial
from edgekit_converters.targets.c99.compiler import compiler
from tests.converters.c99_files import T, files_of
from tests.converters.c99_host import SANITIZED, Pipe, program, running

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler is installed")

INNER, OUTER = 600, 300  # more than one frame each
DIGEST = bytes(range(32)).hex()
IDENTITY = (
    '-DEK_MODEL_REF="line@1.2.3"',
    '-DEK_VARIANT="line-c99-int8"',
    f'-DEK_VARIANT_DIGEST="{DIGEST}"',
)
WEIGHTS = np.random.default_rng(5).integers(-127, 128, (OUTER, INNER)).astype(np.int8)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense layer of 600 and 300 numbers; all is zero at scale 1/8, weights at 1/64, outputs at 16."""
    data = files_of(
        [("FULLY_CONNECTED", [0, 1], {})],
        [T(shape=(1, INNER), scale=0.125), T(shape=(OUTER, INNER), scale=1 / 64, data=WEIGHTS)],
        [T(shape=(1, OUTER), scale=16.0)],
    )
    return program(data, tmp_path_factory.mktemp("line"), (*SANITIZED, *IDENTITY))[0]


@pytest.fixture
def line(binary: Path) -> Iterator[Pipe]:
    with running(binary) as found:
        yield found


def truth(sample: Any) -> Any:
    """The layer's answer to integers, computed here: a product is never half way between two integers."""
    return np.clip(np.rint(WEIGHTS.astype(np.int64) @ sample.reshape(-1) / 64 / 8 / 16), -128, 127)


def sample(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-40, 40, (1, INNER)).astype(np.int8)


def exchange(line: Any, *requests: bytes, seconds: float = 5) -> list[Frame]:
    """What comes back until one frame for each request is there."""
    reader = FrameReader(65_000)
    found: list[Frame] = []
    line.write(b"".join(requests))
    end = time.monotonic() + seconds
    while len(found) < len(requests) and time.monotonic() < end:
        for item in reader.feed(line.read(4096)):
            assert isinstance(item, Frame), item
            found.append(item)
    return found


def fault(frame: Frame) -> Fault:
    assert frame.kind == Kind.ERROR, frame
    return Fault(frame.payload[0])


def test_a_tensor_goes_over_a_real_pty_and_the_answer_comes_back(binary: Path) -> None:
    """The program has one end of a pty, pyserial the other."""
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    port = open_serial(name)
    os.close(theirs)
    process = subprocess.Popen([binary], stdin=ours, stdout=ours)
    os.close(ours)
    try:
        device = SerialModel(port, timeout=5, digest=DIGEST)
        about = device.description
        assert (about.model, about.variant, about.digest) == ("line@1.2.3", "line-c99-int8", DIGEST)
        assert about.inputs[0].shape == (1, INNER)
        assert (about.outputs[0].dtype, about.outputs[0].scale) == ("int8", 16.0)
        for seed in range(3):
            given = sample(seed)
            np.testing.assert_array_equal(device.raw({"t0": given})["t2"][0], truth(given))
            real = device.run({"t0": given.astype(np.float32) * 0.125})["t2"]
            np.testing.assert_array_equal(real[0], truth(given) * 16)
    finally:
        port.close()
        assert process.wait(5) == 0, "the end of the line ends the program"


def test_the_command_line_describes_the_device_and_computes_samples(
    binary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    process = subprocess.Popen([binary], stdin=ours, stdout=ours)
    os.close(ours)
    try:
        assert main(["serial", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == "line@1.2.3"
        rows = np.concatenate([sample(1), sample(2)])
        np.savez(tmp_path / "in.npz", t0=rows)
        assert main(["serial", name, "--input", f"{tmp_path}/in.npz", "--out", f"{tmp_path}/out.npz"]) == 0
        with np.load(tmp_path / "out.npz") as found:
            np.testing.assert_array_equal(found["t2"], np.stack([truth(row) for row in rows]) * 16)
        assert main(["serial", str(tmp_path / "nothing"), "--json"]) == 1
    finally:
        os.close(theirs)
        process.wait(5)


@pytest.mark.parametrize(
    "said",
    [
        *(["--timeout", wrong] for wrong in ("0", "-1", "nan")),
        ["--baud", "0"],
        ["--package", "nowhere"],
        ["--input", "nowhere.npz"],
        ["--out", "out.npz"],
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_told_before_the_device_is_asked(
    said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code: object
    try:
        code = main(["serial", str(tmp_path / "no-port"), *said])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert said[0] in capsys.readouterr().err


def test_noise_between_frames_costs_nothing_but_an_error(line: Pipe) -> None:
    device = SerialModel(line, timeout=5)
    line.write(b"\x07\xfe\x00\x00garbage" + bytes(range(255, 0, -1)) * 3)
    given = sample(1)
    np.testing.assert_array_equal(device.raw({"t0": given})["t2"][0], truth(given))


def test_a_frame_that_is_cut_off_is_told_and_the_next_one_is_answered(line: Pipe) -> None:
    whole = encode(Kind.DESCRIBE, 7, struct.pack("<I", 0))
    for cut in range(1, len(whole) - 1):
        bad, good = exchange(line, whole[:cut] + b"\0", encode(Kind.DESCRIBE, 8, struct.pack("<I", 0)))
        assert fault(bad) in (Fault.BAD_FRAME, Fault.BAD_CRC)
        assert bad.sequence == 0
        assert (good.kind, good.sequence) == (Kind.DESCRIBE | ANSWER, 8)


def test_every_flipped_bit_is_found(line: Pipe) -> None:
    whole = encode(Kind.INVOKE, 0x1234, bytes.fromhex(DIGEST)[:8])
    for place in range(len(whole) - 1):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            if damaged[place] == 0:
                continue  # two short frames, each told
            [answer] = exchange(line, bytes(damaged))
            assert fault(answer) in (Fault.BAD_FRAME, Fault.BAD_CRC)


@pytest.mark.parametrize("size", [252, 257, 300, 5000])
def test_a_frame_longer_than_the_device_takes_is_refused_and_not_kept(line: Pipe, size: int) -> None:
    answers = exchange(line, encode(Kind.WRITE, 3, b"\0" * size), encode(Kind.DESCRIBE, 4, b"\0" * 4))
    expected = Fault.TOO_LONG if size > 256 else None
    assert answers[0].kind == (Kind.ERROR if expected else Kind.WRITE | ANSWER)
    assert expected is None or fault(answers[0]) == expected
    assert (answers[1].kind, answers[1].sequence) == (Kind.DESCRIBE | ANSWER, 4)


def test_a_length_that_differs_from_the_frames_is_refused(line: Pipe) -> None:
    for claimed in (0, 3, 5, 400, 65_535):
        body = struct.pack("<2sBBHH", b"EK", 1, Kind.DESCRIBE, 9, claimed) + bytes(4)
        frame = cobs(body + struct.pack("<I", zlib.crc32(body))) + b"\0"
        [answer] = exchange(line, frame)
        assert (fault(answer), answer.sequence) == (Fault.BAD_FRAME, 9)


def test_another_version_is_refused_by_its_own_name(line: Pipe) -> None:
    body = struct.pack("<2sBBHH", b"EK", 2, Kind.DESCRIBE, 9, 0)
    [answer] = exchange(line, cobs(body + struct.pack("<I", zlib.crc32(body))) + b"\0")
    assert (fault(answer), answer.sequence) == (Fault.BAD_VERSION, 9)


def test_another_model_on_the_device_is_refused_before_anything_is_computed(line: Pipe) -> None:
    with pytest.raises(RefusedError) as caught:
        SerialModel(line, timeout=5, digest="ff" * 32)
    assert caught.value.code == "wrong_model"
    given = sample()
    requests = [
        encode(Kind.WRITE, 1 + n, struct.pack("<BI", 0, at) + given.tobytes()[at : at + 200])
        for n, at in enumerate(range(0, INNER, 200))
    ]
    *_, answer = exchange(line, *requests, encode(Kind.INVOKE, 9, b"\xff" * 8))
    assert fault(answer) == Fault.WRONG_MODEL


REQUESTS = {
    "an unknown type": (encode(0x55, 1, b""), Fault.UNKNOWN_TYPE),
    "an input that is not there": (encode(Kind.WRITE, 1, struct.pack("<BI", 1, 0) + b"x"), Fault.BAD_REQUEST),
    "an output that is not there": (encode(Kind.READ, 1, struct.pack("<BIH", 9, 0, 1)), Fault.BAD_REQUEST),
    "a gap in an input": (encode(Kind.WRITE, 1, struct.pack("<BI", 0, 10) + b"x"), Fault.BAD_REQUEST),
    "beyond an input": (encode(Kind.WRITE, 1, struct.pack("<BI", 0, 2**32 - 1) + b"xy"), Fault.BAD_REQUEST),
    "a description from behind its end": (encode(Kind.DESCRIBE, 1, b"\xff" * 4), Fault.BAD_REQUEST),
    "an output before it was computed": (encode(Kind.READ, 1, struct.pack("<BIH", 0, 0, 1)), Fault.NO_RESULT),
    "an invoke without its input": (
        encode(Kind.INVOKE, 1, bytes.fromhex(DIGEST)[:8]),
        Fault.INCOMPLETE_INPUT,
    ),
    "an invoke without a digest": (encode(Kind.INVOKE, 1, b""), Fault.BAD_REQUEST),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_makes_no_sense_is_told_so(line: Pipe, name: str) -> None:
    request, expected = REQUESTS[name]
    [answer] = exchange(line, request)
    assert (fault(answer), answer.sequence) == (expected, 1)


def test_an_output_is_read_within_its_bounds_only(line: Pipe) -> None:
    device = SerialModel(line, timeout=5)
    device.raw({"t0": sample()})
    for offset, count in ((OUTER - 1, 2), (2**32 - 1, 2), (0, 257), (OUTER + 1, 0)):
        [answer] = exchange(line, encode(Kind.READ, 60_000, struct.pack("<BIH", 0, offset, count)))
        assert fault(answer) == Fault.BAD_REQUEST


def test_a_result_is_gone_once_the_input_is_written_again(line: Pipe) -> None:
    """Input and output share the arena: what is read must be what was computed last."""
    device = SerialModel(line, timeout=5)
    device.raw({"t0": sample()})
    first = struct.pack("<BI", 0, 0) + b"x"
    _, answer = exchange(
        line, encode(Kind.WRITE, 60_000, first), encode(Kind.READ, 60_001, struct.pack("<BIH", 0, 0, 1))
    )
    assert fault(answer) == Fault.NO_RESULT


class Lossy:
    """A line that loses or damages one in ten of the pieces that are read or written."""

    def __init__(self, line: Pipe, seed: int) -> None:
        self._line, self._rng, self.spoilt = line, np.random.default_rng(seed), 0

    def _spoiled(self, data: bytes) -> bytes:
        if not data or self._rng.random() > 0.1:
            return data
        self.spoilt += 1
        place = int(self._rng.integers(0, len(data)))
        whole = data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :]
        return data[:place] if self._rng.random() < 0.5 else whole

    def read(self, size: int = 1) -> bytes:
        return self._spoiled(self._line.read(size))

    def write(self, data: bytes) -> None:
        self._line.write(self._spoiled(data))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lost_and_damaged_frames_are_sent_again_and_the_answer_is_right(line: Pipe, seed: int) -> None:
    lossy = Lossy(line, seed)
    device = SerialModel(lossy, timeout=0.2, attempts=10)
    for number in range(4):
        given = sample(number)
        np.testing.assert_array_equal(device.raw({"t0": given})["t2"][0], truth(given))
    assert lossy.spoilt > 3


def test_an_invoke_whose_answer_was_lost_is_not_computed_twice(line: Pipe) -> None:
    device = SerialModel(line, timeout=5)
    device.raw({"t0": sample()})
    again = encode(Kind.INVOKE, device.sequence - 2, bytes.fromhex(DIGEST)[:8])  # two reads came after it
    one, two = exchange(line, again, again)
    assert (one.kind, two.kind) == (Kind.INVOKE | ANSWER, Kind.INVOKE | ANSWER)


def test_a_device_that_never_answers_is_given_up_in_time() -> None:
    ours, theirs = os.openpty()
    port = open_serial(os.ttyname(theirs))
    started = time.monotonic()
    with pytest.raises(OperationTimeout) as caught:
        SerialModel(port, timeout=0.1, attempts=3)
    assert 0.3 <= time.monotonic() - started < 3
    assert caught.value.code == "serial_silent"
    port.close()
    os.close(ours)
    os.close(theirs)


def test_a_device_that_stops_in_the_middle_is_given_up(binary: Path) -> None:
    process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    device = SerialModel(Pipe(process), timeout=0.2, attempts=2)
    threading.Timer(0.1, process.kill).start()
    with pytest.raises((OperationTimeout, UnavailableError)) as caught:
        _asked_for_ever(device)
    assert caught.value.code in ("serial_silent", "serial_lost")
    process.wait()
    for end in (process.stdin, process.stdout):
        assert end is not None
        end.close()


def _asked_for_ever(device: SerialModel) -> None:
    while True:
        device.raw({"t0": sample()})


def test_values_that_do_not_fit_the_port_are_refused_before_they_are_sent(line: Pipe) -> None:
    device = SerialModel(line, timeout=5)
    for given, code in (
        ({"t0": [1.0]}, "bad_shape"),
        ({"t0": np.full(INNER, np.nan)}, "not_finite"),
        ({}, "bad_request"),
    ):
        with pytest.raises(RequestError) as caught:
            device.run(given)
        assert caught.value.code == code


def test_random_bytes_and_random_frames_never_harm_the_parser(line: Pipe) -> None:
    """Under the sanitizers: whatever arrives, the program lives and the next good frame is answered."""
    rng = np.random.default_rng(11)
    seen = 0
    for _ in range(60):
        for _ in range(100):
            line.write(_hostile(rng))
        good = encode(Kind.DESCRIBE, 777, struct.pack("<I", 0))
        reader, answered, end = FrameReader(65_000), False, time.monotonic() + 20
        line.write(b"\0" + good)
        while not answered and time.monotonic() < end:
            for item in reader.feed(line.read(65_536)):
                assert isinstance(item, Frame), item
                answered |= item.sequence == 777
                seen += 1
        assert answered
    assert seen > 3000, "hardly anything reached the parser"


def _hostile(rng: Any) -> bytes:
    kind = rng.integers(0, 4)
    if kind == 0:
        return bytes(rng.integers(0, 256, rng.integers(1, 400), dtype=np.uint8))
    payload = bytes(rng.integers(0, 256, rng.integers(0, 320), dtype=np.uint8))
    whole = encode(int(rng.integers(0, 6)), int(rng.integers(1, 700)), payload)
    if kind == 1:
        return whole
    damaged = bytearray(whole)
    damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
    return bytes(damaged) if kind == 2 else whole[: rng.integers(0, len(whole))]


def test_the_readers_of_both_sides_agree_on_what_is_broken() -> None:
    reader = FrameReader(256)
    [found] = reader.feed(encode(Kind.WRITE, 1, bytes(300)))
    assert isinstance(found, Broken)
    assert found.fault == Fault.TOO_LONG
