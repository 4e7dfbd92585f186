"""`edgekit fleet serve` as a process: ends clean, is killed, is started twice, finds its ports taken."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekit.documents import ControllerState, EnrolAnswer
from edgekit_fleet.broker.credentials import service_password
from edgekit_fleet.broker.files import BrokerFiles
from edgekit_fleet.context import Fleet
from edgekit_fleet.enrolment import make_token
from edgekit_fleet.home import Home
from tests.conftest import require_service
from tests.fleet.homes import enrol_request
from tests.fleet.mqtt_client import Client

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["mosquitto", "fallback"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto":
        require_service("mosquitto")
    return str(request.param)


@dataclass
class Service:
    """A running service."""

    home: Home
    process: subprocess.Popen[str]

    @property
    def facts(self) -> dict[str, Any]:
        facts = self.home.running_service()
        assert facts is not None
        return facts

    @property
    def broker_pid(self) -> int:
        return int(BrokerFiles(home=self.home).pid.read_text())


def command(home: Home, *words: str) -> list[str]:
    return [sys.executable, "-m", "edgekit", "fleet", "serve", "--home", str(home.path), *words]


def run(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, *words), capture_output=True, text=True, timeout=60, check=False, cwd=home.path
    )


@contextlib.contextmanager
def serving(home: Home, kind: str) -> Iterator[Service]:
    process = subprocess.Popen(
        command(home, "--port", "0", "--broker", kind), stderr=subprocess.PIPE, text=True, cwd=home.path
    )
    try:
        eventually(lambda: home.running_service() is not None or process.poll() is not None, 60)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        yield Service(home, process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def enrolled(fleet: Fleet, service: Service, name: str) -> EnrolAnswer:
    token = make_token(fleet, name=name, ttl=1e9, actor="test")["token"]
    request = enrol_request(token, Ed25519PrivateKey.generate())
    answer = httpx.post(f"{service.facts['url']}/v1/enrol", content=request.to_bytes(), trust_env=False)
    assert answer.status_code == 200, answer.text
    return EnrolAnswer.parse(answer.content)


def connected(answer: EnrolAnswer) -> Client:
    return Client(answer.mqtt_port, answer.username, answer.password)


def test_a_device_is_let_in_right_after_enrolment_and_sees_only_its_own(base_fleet: Fleet, kind: str) -> None:
    with serving(base_fleet.home, kind) as service:
        one, two = enrolled(base_fleet, service, "cam-1"), enrolled(base_fleet, service, "cam-2")
        with connected(one) as first, connected(two) as second:
            second.subscribe("#")
            second.subscribe("ek/1/default/d/cam-1/desired")
            first.publish("ek/1/default/d/cam-1/ev", b"{}")
            second.quiet()
            assert second.received == []


def test_a_stopped_service_leaves_nothing_running(base_fleet: Fleet, kind: str) -> None:
    with serving(base_fleet.home, kind) as service:
        broker = service.broker_pid
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
    assert gone(broker)
    assert not base_fleet.home.service_file.exists()


def test_a_killed_service_takes_its_broker_along_and_comes_back_on_the_same_port(
    base_fleet: Fleet, kind: str
) -> None:
    home = base_fleet.home
    with serving(home, kind) as service:
        answer = enrolled(base_fleet, service, "cam-1")
        broker = service.broker_pid
        service.process.kill()
        service.process.wait()
        eventually(lambda: gone(broker))
    with serving(home, kind) as again:
        assert again.facts["mqtt_port"] == answer.mqtt_port
        with connected(answer) as device:
            device.publish("ek/1/default/d/cam-1/ev", b"{}")


def test_the_service_tells_of_its_life_and_its_epoch_grows(base_fleet: Fleet, kind: str) -> None:
    home = base_fleet.home
    epochs = []
    for _ in range(2):
        with serving(home, kind) as service:
            password = service_password(home, "default")
            watcher = Client(service.facts["mqtt_port"], "edgekit-service-default", password)
            service.process.send_signal(signal.SIGSTOP)  # its place in the broker is taken for a moment
            with watcher:
                watcher.subscribe("ek/1/default/ctl/state")
                watcher.wait(lambda w=watcher: bool(w.received))  # type: ignore[misc]  # bound now
                epochs.append(ControllerState.parse(watcher.received[0][1]).epoch)
            service.process.send_signal(signal.SIGCONT)
    assert epochs == [1, 2]


def test_a_second_service_on_the_same_home_is_refused(base_fleet: Fleet) -> None:
    with serving(base_fleet.home, "fallback"):
        done = run(base_fleet.home, "--port", "0")
        assert done.returncode == 3
        assert "runs on this home already" in done.stderr


def test_a_taken_http_port_is_named(base_fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(base_fleet.home, "--port", str(taken.getsockname()[1]), "--broker", "fallback")
    assert done.returncode == 3
    assert "port cannot be used" in done.stderr
    assert "--port" in done.stderr


def test_a_taken_broker_port_is_named(base_fleet: Fleet, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = base_fleet.home
        home.settings_file.write_text(home.settings_file.read_text().replace("port = 0", f"port = {port}"))
        done = run(home, "--port", "0", "--broker", kind)
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "broker.port" in done.stderr


def test_a_home_that_is_none_and_one_without_keys_are_usage_errors(base_fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = run(Home(path=tmp_path / "empty"), "--port", "0")
    assert empty.returncode == 2
    assert "edgekit fleet init" in empty.stderr
    (base_fleet.home.metadata / "timestamp.json").unlink()
    without = run(base_fleet.home, "--port", "0")
    assert without.returncode == 2
    assert "edgekit key init" in without.stderr


def test_mosquitto_that_is_not_there_is_said_with_the_ways_out(base_fleet: Fleet, tmp_path: Path) -> None:
    home = base_fleet.home
    home.settings_file.write_text(
        home.settings_file.read_text().replace('folder = ""', f'folder = "{tmp_path}"')
    )
    done = run(home, "--port", "0", "--broker", "mosquitto")
    assert done.returncode == 1
    assert "apt-get install mosquitto" in done.stderr
    assert "--broker fallback" in done.stderr


@pytest.mark.parametrize("broker", ["rabbit", "http://x", "mqtt://", "mqtt://h:99999"])
def test_a_broker_that_is_none_is_refused(base_fleet: Fleet, broker: str) -> None:
    done = run(base_fleet.home, "--port", "0", "--broker", broker)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


def test_the_fallback_never_leaves_loopback(base_fleet: Fleet) -> None:
    home = base_fleet.home
    text = home.settings_file.read_text().replace('host = "127.0.0.1"', 'host = "192.0.2.1"')
    home.settings_file.write_text(text)
    done = run(home, "--port", "0", "--broker", "fallback")
    assert done.returncode == 1
    assert "loopback only" in done.stderr


def test_status_follows_the_running_service(base_fleet: Fleet) -> None:
    with serving(base_fleet.home, "fallback") as service:
        words = ["fleet", "status", "--home", str(base_fleet.home.path), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", *words],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "EDGEKIT_URL": ""},
        )
        document = json.loads(done.stdout)
        assert (document["url"], document["broker"]) == (service.facts["url"], "fallback")
        assert document["connected"] is True
