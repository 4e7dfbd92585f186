"""The service as a process over a real Mosquitto: killed in the middle of a rollout, and again.

Simulated devices speak real MQTT to it, in real time.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from edgekit.documents import EnrolAnswer
from edgekit.ports import Subscriber
from edgekit_fleet.client import FleetClient
from edgekit_fleet.context import SystemClock, open_fleet
from edgekit_fleet.db.rollouts import TelemetryRow
from edgekit_fleet.home import Home
from edgekit_fleet.releases import add_release, sign_release
from edgekit_fleet.setup import init_keys
from edgekit_fleet.slots import create_slot
from edgekit_fleet.transport import Address, MqttTransport
from tests.conftest import require_service
from tests.fleet.homes import CONTRACT, FACTS, enrol_request, write_package
from tests.simulators.sim_device import Behaviour, SimDevice, always

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(420)]
DEVICES = 5
PLAN = {
    "trial_seconds": 0.5,
    "ring": [
        {"name": "canary", "select": {"percent": 10}, "soak": 3, "gates": [{"type": "failures"}]},
        {"name": "rest", "soak": 2, "gates": [{"type": "failures"}]},
    ],
}


class RealTransport:
    """What `SimDevice` wants of a transport, over MQTT; messages wait for the test's own thread."""

    def __init__(self, address: Address) -> None:
        self._mqtt = MqttTransport(address)
        self._waiting: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        self._deliver: Subscriber | None = None
        self.back = threading.Event()

    def start(self, subscriptions: Sequence[str], on_message: Subscriber) -> None:
        """Connect; again after a reconnect, when only the device's own messages are to be repeated."""
        if self._deliver is not None:
            return
        self._deliver = on_message
        self._mqtt.on_connection(lambda connected: self.back.set() if connected else None)
        self._mqtt.start(subscriptions, lambda *message: self._waiting.put(message))
        self._mqtt.wait_connected(20)
        self.back.clear()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand over."""
        return self._mqtt.publish(topic, payload, retain=retain)

    @property
    def connected(self) -> bool:
        """Whether the broker is reached."""
        return self._mqtt.connected

    def pump(self) -> None:
        """Deliver what came."""
        assert self._deliver is not None
        while not self._waiting.empty():
            self._deliver(*self._waiting.get())

    def stop(self) -> None:
        """Go away."""
        self._mqtt.stop()


class RealBroker:
    """Hands out `RealTransport`s; for `SimDevice` only."""

    up = True

    def __init__(self, addresses: dict[str, Address]) -> None:
        self._addresses = addresses
        self.transports: dict[str, RealTransport] = {}

    def transport(self, name: str) -> RealTransport:
        """A client."""
        self.transports[name] = RealTransport(self._addresses[name])
        return self.transports[name]


class World:
    """A home, its service process, and devices."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(path=folder / "home")
        self.folder = folder
        init_keys(self.home.path, clock=SystemClock())
        fleet = open_fleet(self.home)
        create_slot(fleet, "digits", CONTRACT, actor="test")
        for version in ("1.0.0", "2.0.0"):
            write_package(folder / version, version=version, salt=version)
            add_release(fleet, folder / version, actor="test")
            sign_release(fleet, f"digits@{version}", actor="test")
        fleet.database.close()
        self.service: subprocess.Popen[bytes] | None = None
        self.devices: list[SimDevice] = []
        self.broker: RealBroker | None = None
        self.behave = always({})
        self.clients: list[FleetClient] = []

    def serve(self) -> FleetClient:
        """Start the service; returns when it answers."""
        log = (self.folder / "serve.log").open("ab")
        command = [
            sys.executable,
            "-m",
            "edgekit",
            "fleet",
            "serve",
            "--home",
            str(self.home.path),
            "--port",
            "0",
        ]
        with log:
            self.service = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 40
        while (facts := self.home.running_service()) is None or facts["pid"] != self.service.pid:
            assert self.service.poll() is None, (self.folder / "serve.log").read_text()
            assert time.monotonic() < end, (self.folder / "serve.log").read_text()
            time.sleep(0.05)
        self.clients.append(FleetClient(str(facts["url"]), self.home.operator_token()))
        return self.clients[-1]

    def kill(self) -> None:
        """kill -9."""
        assert self.service is not None
        os.kill(self.service.pid, signal.SIGKILL)
        self.service.wait(10)

    def enrol(self, client: FleetClient) -> None:
        """Enrol the devices and connect them."""
        answers = {}
        for number in range(DEVICES):
            token = client.post("/v1/tokens", {"name": f"dev-{number}", "ttl": 600.0})["token"]
            request = enrol_request(token, Ed25519PrivateKey.generate(), name=f"dev-{number}")
            answers[f"dev-{number}"] = EnrolAnswer.from_dict(client.post("/v1/enrol", request.to_dict()))
        self.broker = RealBroker(
            {
                name: Address(host=a.mqtt_host, port=a.mqtt_port, username=a.username, password=a.password)
                for name, a in answers.items()
            }
        )
        for name, answer in answers.items():
            device = SimDevice(
                device=answer.device,
                tenant=answer.tenant,
                facts=FACTS,
                broker=self.broker,  # type: ignore[arg-type]  # the real one, where the simulated one is named
                behave=lambda device, release: self.behave(device, release),
                random=random.Random(name),
                step_seconds=0.2,
                window=0.5,
            )
            device.connect(time.time())
            self.devices.append(device)

    def live(self, done: Callable[[], bool], seconds: float) -> None:
        """Let devices live until something holds."""
        assert self.broker is not None
        end, resend = time.monotonic() + seconds, time.monotonic() + 2
        while not done():
            assert time.monotonic() < end, (self.folder / "serve.log").read_text()[-3000:]
            for transport in self.broker.transports.values():
                transport.pump()
            for device in self.devices:
                transport = self.broker.transports[device.device]
                if transport.back.is_set():
                    transport.back.clear()
                    device.connect(time.time())
                device.tick(time.time())
                if time.monotonic() > resend:
                    for seq in sorted(device.outbox):
                        device._send(device.outbox[seq])
            resend = time.monotonic() + 2 if time.monotonic() > resend else resend
            time.sleep(0.05)

    def close(self) -> None:
        """End everything."""
        for client in self.clients:
            client.close()
        for transport in self.broker.transports.values() if self.broker else ():
            transport.stop()
        if self.service is not None and self.service.poll() is None:
            self.service.terminate()
            self.service.wait(20)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    require_service("mosquitto")
    made = World(tmp_path)
    yield made
    made.close()


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_a_rollout_survives_kills_of_the_service_and_no_window_is_missing(world: World) -> None:
    client = world.serve()
    world.enrol(client)
    started = client.post("/v1/rollouts", {"release": "digits@1.0.0", "slot": "digits", "plan": PLAN})
    for pause in (0.6, 1.5, 2.5):
        world.live(after(pause), 30)
        world.kill()
        world.live(after(0.5), 30)
        client = world.serve()
    states: list[str] = []

    def completed() -> bool:
        states.append(client.get(f"/v1/rollouts/{started['id']}")["state"])
        return states[-1] == "completed"

    world.live(completed, 60)
    for device in world.devices:
        device.window_at = float("inf")
    world.live(lambda: not any(device.outbox for device in world.devices), 30)
    fleet = open_fleet(world.home)
    with fleet.database.read() as session:
        for device in world.devices:
            query = select(TelemetryRow.seq).where(TelemetryRow.device == device.device)
            stored = sorted(session.scalars(query))
            assert stored == sorted(device.sent)
            assert len(stored) >= 3
    fleet.database.close()


def test_a_bad_release_is_taken_back_though_the_service_is_killed_meanwhile(world: World) -> None:
    client = world.serve()
    world.enrol(client)
    first = client.post("/v1/rollouts", {"release": "digits@1.0.0", "slot": "digits", "plan": PLAN})["id"]
    world.live(lambda: client.get(f"/v1/rollouts/{first}")["state"] == "completed", 60)
    world.behave = always({"digits@2.0.0": Behaviour(model_errors=50)})
    plan = {**PLAN, "ring": [{"name": "all", "soak": 2, "gates": [{"type": "failures", "limit": 0.1}]}]}
    second = client.post("/v1/rollouts", {"release": "digits@2.0.0", "slot": "digits", "plan": plan})["id"]
    world.live(lambda: client.get(f"/v1/rollouts/{second}")["state"] != "running", 60)
    world.kill()
    client = world.serve()
    world.live(lambda: client.get(f"/v1/rollouts/{second}")["state"] == "rolled_back", 60)
    assert {device.active["digits"].release for device in world.devices} == {"digits@1.0.0"}
    replays = client.post(f"/v1/rollouts/{second}/replay", {})["replays"]
    assert [item["same"] for item in replays] == [True] * len(replays)
