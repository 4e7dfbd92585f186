"""Stream mode against the running agent: samples over MQTT and over a serial line (a pty pair)."""

from __future__ import annotations

import json
import os
import pty
import select
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit_fleet.demo.calls import Kind
from tests.e2e.conftest import MakeLine, Packages
from tests.e2e.line import Json, plan, until
from tests.fleet.mqtt_client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


class Terminal:
    """Our end of a serial line; `port` is the agent's."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._ours)
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._rest = b""

    def write(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def read(self, seconds: float = 10.0) -> Json:
        """The next line that came."""
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no answer within {seconds:g} s; so far {self._rest!r}"
            self._rest += os.read(self._ours, 4096)
        line, _, self._rest = self._rest.partition(b"\n")
        return dict(json.loads(line))

    def close(self) -> None:
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal()
    yield found
    found.close()


def test_samples_over_mqtt_and_over_a_serial_line_are_answered(
    packages: Packages,
    host_kinds: tuple[Kind, ...],
    make_line: MakeLine,
    prepared_home: Path,
    terminal: Terminal,
) -> None:
    line = make_line()
    line.adopt(prepared_home)
    settings = line.calls.home / "fleet.toml"
    settings.write_text(settings.read_text().replace("producers = []", 'producers = ["meter"]'))
    line.serve()
    streams = '\n[[stream]]\nkind = "mqtt"\nslot = "digits"\n'
    streams += f'[[stream]]\nkind = "serial"\nslot = "digits"\nport = "{terminal.port}"\n'
    device = line.enrol(host_kinds[0], start=False, extra=streams)
    config = device.home / "agent.toml"
    config.write_text(config.read_text().replace('modes = ["service"]', 'modes = ["service", "stream"]'))
    line.start_agent(device)
    gates = '{ type = "failures", limit = 0.5 }'
    assert line.ended(line.start_rollout(packages.GOOD, plan(soak=1, gates=gates)))["state"] == "completed"
    with np.load(packages.good / "field.npz", allow_pickle=False) as data:
        images, labels = data["image"][:20], data["labels"][:20]

    password = line.calls.edgekit("fleet", "broker", "--password", "meter").out.strip()
    topic = f"ek/1/{line.tenant}/d/{device.id}"
    with Client(line.identity(device)["mqtt_port"], "meter", password) as meter:
        meter.subscribe(f"{topic}/out/digits")
        for number, image in enumerate(images):
            sample = {"id": number, "inputs": {"image": image.tolist()}}
            meter.publish(f"{topic}/in/digits", json.dumps(sample).encode())
        meter.publish(f"{topic}/in/digits", b'{"id": 99, "inputs": {"image": [1, 2]}}')
        until(lambda: len(meter.received) >= 21, seconds=20, what="21 answers over MQTT")
        answers = {answer["id"]: answer for answer in (json.loads(p) for _, p, _ in meter.received)}
    right = [
        answers[n]["decisions"]["probabilities"]["label"] == str(label) for n, label in enumerate(labels)
    ]
    assert sum(right) >= 17
    assert answers[0]["version"] == "1.0.0"
    assert "error" in answers[99]

    right = []
    for image, label in zip(images, labels, strict=True):
        terminal.write(",".join(f"{value:g}" for value in image.ravel()))
        right.append(terminal.read()["decisions"]["probabilities"]["label"] == str(label))
    assert sum(right) >= 17
    terminal.write("1,2,three")
    assert terminal.read()["code"] == "bad_csv"
    terminal.write(json.dumps({"id": "j", "inputs": images[0].tolist()}))
    assert terminal.read()["id"] == "j"
    counted = until(
        lambda: sum(w["requests"] for w in line.stored(device, "window")) >= 41, seconds=10, what="telemetry"
    )
    assert counted
