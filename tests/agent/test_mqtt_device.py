"""The agent as a process over a real Mosquitto: presence, foreign topics, broker and agent killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.agent.harness import make_home
from tests.conftest import REPOSITORY, require_service
from tests.simulators import toy_model
from tests.simulators.mosquitto import Mosquitto, mosquitto
from tests.simulators.mqtt_peer import peer
from tests.simulators.service import FakeService

CONFIG = """
[agent]
modes = ["service"]
[telemetry]
seconds = 0.2
resend_seconds = 1.0
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(require_service("mosquitto"), tmp_path / "broker") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, service: FakeService, broker: Mosquitto) -> Path:
    service.mqtt_port = broker.port
    folder = tmp_path / "home"
    make_home(folder, service)
    (folder / "agent.toml").write_text(CONFIG)
    return folder


@contextmanager
def agent(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The agent with the toy runtime, in a process of its own."""
    process = start(home)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        assert process.wait(timeout=15) in (0, -9)


def start(home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.agent.toy_agent", str(home)]
    return subprocess.Popen(command, cwd=REPOSITORY)


def status(home: Path) -> Any:
    command = [sys.executable, "-m", "edgekit_agent.cli", "status", "--json", "--home", str(home)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, cwd=REPOSITORY).stdout)


def ask(home: Path) -> Any:
    """One inference over HTTP."""
    import urllib.request

    place = json.loads((home / "state" / "http.json").read_text())
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 0, 0]}]}
    request = urllib.request.Request(
        place["url"] + "/v2/models/toy/infer", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())


@pytest.mark.e2e
def test_birth_profile_swap_inference_telemetry_and_farewell(
    home: Path, service: FakeService, broker: Mosquitto
) -> None:
    toy = toy_model.make()
    service.add(toy)
    with peer(broker.port) as other:
        other.acknowledge = True
        with agent(home):
            other.until(lambda: (other.latest("presence") or {}).get("state") == "online", "birth")
            other.until(lambda: other.latest("profile") is not None, "profile")
            assert other.latest("profile")["profiles"] == [toy_model.PROFILE]
            other.publish("desired", service.envelope(service.wish(toy)))
            report = other.until_step("committed", gen=1)
            assert report["slots"]["toy"]["release"] == "toy@1.0.0"
            assert ask(home)["model_name"] == "toy"
            other.until(lambda: any(r.get("requests") for r in other.stored.values()), "a window arrives")
            facts = status(home)
            assert (facts["running"], facts["connected"], facts["step"]) == (True, True, "committed")
        other.until(lambda: other.latest("presence")["state"] == "offline", "farewell")
        assert status(home)["running"] is False


@pytest.mark.e2e
def test_a_killed_agent_leaves_its_will_and_a_late_will_can_be_told_by_its_session(
    home: Path, service: FakeService, broker: Mosquitto
) -> None:
    with peer(broker.port) as other:
        with agent(home) as process:
            other.until(lambda: (other.latest("presence") or {}).get("state") == "online", "birth")
            first = other.latest("presence")["session"]
            process.send_signal(signal.SIGKILL)
            other.until(lambda: other.latest("presence")["state"] == "lost", "the will")
            assert other.latest("presence")["session"] == first
        with agent(home):
            other.until(lambda: other.latest("presence")["state"] == "online", "birth again")
            assert other.latest("presence")["session"] > first


@pytest.mark.e2e
def test_messages_for_other_devices_are_dropped_and_counted(
    home: Path, service: FakeService, broker: Mosquitto
) -> None:
    """A broker that delivers what nobody subscribed to: simulated by a second subscription of the same
    client id, which a persistent session keeps."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    before = paho.Client(CallbackAPIVersion.VERSION2, client_id="dev-1", clean_session=False)
    before.connect("127.0.0.1", broker.port)
    before.loop_start()
    before.subscribe("ek/1/acme/d/+/desired", 1)[1]
    time.sleep(0.3)
    before.disconnect()
    before.loop_stop()
    toy = toy_model.make()
    service.add(toy)
    with peer(broker.port) as other, agent(home):
        other.until(lambda: (other.latest("presence") or {}).get("state") == "online", "birth")
        foreign = service.envelope(service.wish(toy), device="dev-2")
        service.gen = 0
        other.publish("desired", foreign, device="dev-2")
        other.publish("desired", service.envelope(service.wish(toy)))
        report = other.until_step("committed", gen=1)
        assert report["foreign"] >= 1
        assert status(home)["foreign"] >= 1
        assert status(home)["refused"] == {}, "it was not even looked at"


@pytest.mark.e2e
def test_a_desired_document_published_while_the_device_was_away_is_found(
    home: Path, service: FakeService, broker: Mosquitto
) -> None:
    toy = toy_model.make()
    service.add(toy)
    with peer(broker.port) as other:
        other.publish("desired", service.envelope(service.wish(toy)))
        with agent(home):
            other.until_step("committed", gen=1)


@pytest.mark.e2e
@pytest.mark.slow
def test_no_window_is_missing_after_kills_of_broker_and_agent(
    home: Path, service: FakeService, broker: Mosquitto
) -> None:
    toy = toy_model.make()
    service.add(toy)
    with peer(broker.port) as other:
        with agent(home) as process:
            other.publish("desired", service.envelope(service.wish(toy)))
            other.until_step("committed", gen=1)
            for _ in range(20):
                ask(home)
                time.sleep(0.02)
            broker.stop(kill=True)
            for _ in range(30):
                ask(home)
                time.sleep(0.03)
            process.send_signal(signal.SIGKILL)
            process.wait()
        stored = _outbox(home)
        assert stored, "windows are waiting"
        broker.start()
        other.acknowledge = True
        with agent(home):
            other.until(lambda: stored <= set(other.stored), "every window that was stored has arrived")
            other.until(lambda: status(home)["outbox"] <= 2, "and the outbox empties")
        boots = {boot for boot, _ in other.stored}
        for boot in boots:
            seqs = sorted(seq for name, seq in other.stored if name == boot)
            assert seqs == list(range(len(seqs))), f"no hole in boot {boot}"


def _outbox(home: Path) -> set[tuple[str, int]]:
    from edgekit_agent.outbox import Outbox

    outbox = Outbox(home / "state" / "outbox.db", boot_id="99999999-x")
    keys = {(item.boot_id, item.seq) for item in outbox.pending(10_000)}
    outbox.close()
    return keys


@pytest.mark.e2e
def test_a_windows_puback_is_not_an_acknowledgement(
    home: Path, service: FakeService, broker: Mosquitto
) -> None:
    toy = toy_model.make()
    service.add(toy)
    with peer(broker.port) as other, agent(home):
        other.publish("desired", service.envelope(service.wish(toy)))
        other.until_step("committed", gen=1)
        ask(home)
        other.until(lambda: other.received >= 3, "records are sent")
        first = set(other.stored)
        other.until(lambda: other.received > len(other.stored), "and sent again, for nobody acknowledged")
        assert first <= _pending_now(home)
        other.acknowledge = True
        other.until(lambda: not first & _pending_now(home), "now they are gone")


def _pending_now(home: Path) -> set[tuple[str, int]]:
    import sqlite3

    with sqlite3.connect(home / "state" / "outbox.db") as db:
        rows = db.execute("SELECT boot_id, seq FROM records").fetchall()
    db.close()
    return {(str(boot), int(seq)) for boot, seq in rows}


@pytest.mark.e2e
def test_malformed_documents_are_dropped_and_the_agent_lives(
    home: Path, service: FakeService, broker: Mosquitto
) -> None:
    toy = toy_model.make()
    service.add(toy)
    with peer(broker.port) as other, agent(home):
        other.until(lambda: (other.latest("presence") or {}).get("state") == "online", "birth")
        for payload in (b"", b"{", b"\xff\xfe", b"[]", b'{"signed": 1}', os.urandom(2000)):
            other.publish("desired", payload, retain=False)
            other.publish("ack", payload, retain=False)
        other.publish("desired", service.envelope(service.wish(toy)))
        other.until_step("committed", gen=1)
        assert status(home)["exceptions"] == 0
        assert status(home)["malformed"] >= 5


@pytest.mark.e2e
def test_a_second_agent_in_the_same_home_is_refused(home: Path, broker: Mosquitto) -> None:
    with peer(broker.port) as other, agent(home):
        other.until(lambda: (other.latest("presence") or {}).get("state") == "online", "birth")
        command = [sys.executable, "-m", "edgekit_agent.cli", "run", "--home", str(home)]
        second = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY, timeout=30, check=False
        )
        assert second.returncode == 2
        assert "runs in this home already" in second.stderr


@pytest.mark.e2e
async def test_a_link_whose_thread_died_is_started_again(
    tmp_path: Path, service: FakeService, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library raises on its own thread, the device does not stay silent for ever."""
    import asyncio
    import socket
    import threading

    from edgekit_agent import supervisor
    from tests.agent.harness import running

    monkeypatch.setattr(supervisor, "_HEALTHY_SECONDS", 0.05)
    monkeypatch.setattr(supervisor, "_RESTART_SECONDS", 0.05)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    service.mqtt_port = broker.port
    async with running(tmp_path / "home", service) as agent:
        link = agent.supervisor._link
        await agent.until(lambda: link.connected, "it connects")
        first = link.session

        def broken(*_: Any) -> None:
            raise AttributeError("a defect in the client library")

        monkeypatch.setattr(link._client, "loop_forever", broken)
        assert isinstance(link._client._sock, socket.socket)
        link._client._sock.shutdown(2)
        await agent.until(lambda: agent.supervisor.exceptions > 0, "the death is noticed")
        monkeypatch.undo()
        await agent.until(lambda: link.connected and link.session > first, "and it connects again")
        agent.supervisor.exceptions = 0
        await asyncio.sleep(0)
