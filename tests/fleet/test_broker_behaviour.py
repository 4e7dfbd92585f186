"""The same threats against both brokers: a real Mosquitto, and the guarded fallback."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit_fleet.broker.child import BrokerChild
from edgekit_fleet.broker.choice import FALLBACK, Chosen, choose_broker
from edgekit_fleet.broker.credentials import hash_password
from edgekit_fleet.broker.files import write_users
from edgekit_fleet.home import Home, Settings, create_home
from edgekit_fleet.transport import Address, MqttTransport, Will
from tests.conftest import require_service
from tests.fleet.mqtt_client import Client

BASE = "ek/1/default"
DEVICES = ("cam-1", "cam-2", "cam-3")


@dataclass(kw_only=True)
class Running:
    """A running broker with three devices."""

    home: Home
    settings: Settings
    chosen: Chosen
    child: BrokerChild

    @property
    def port(self) -> int:
        return self.chosen.port

    def device(self, name: str, *, client_id: str | None = None, clean: bool = False) -> Client:
        return Client(self.port, name, f"password of {name}", client_id=client_id, clean=clean)

    def service(self) -> Client:
        return Client(self.port, self.chosen.username, self.chosen.password)


@contextmanager
def running(home: Home, kind: str) -> Iterator[Running]:
    settings = home.settings()
    users = {name: hash_password(f"password of {name}") for name in DEVICES}
    chosen = choose_broker(home, settings, kind, users)
    assert chosen.launch is not None
    child = BrokerChild(chosen.launch)
    child.start()
    try:
        yield Running(home=home, settings=settings, chosen=chosen, child=child)
    finally:
        child.stop()


@pytest.fixture(params=["mosquitto", "fallback"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto":
        require_service("mosquitto")
    return str(request.param)


@pytest.fixture
def broker(kind: str, tmp_path: Path) -> Iterator[Running]:
    with running(create_home(tmp_path / "home"), kind) as started:
        yield started


def service_transport(broker: Running) -> MqttTransport:
    chosen = broker.chosen
    return MqttTransport(
        Address(host=chosen.host, port=chosen.port, username=chosen.username, password=chosen.password)
    )


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_no_device_ever_receives_anothers_topic(broker: Running) -> None:
    with broker.service() as service:
        for name in DEVICES:
            service.publish(f"{BASE}/d/{name}/desired", f"for {name}".encode(), retain=True)
        clients = {name: broker.device(name).start() for name in DEVICES}
        for name, client in clients.items():
            client.subscribe(f"{BASE}/d/{name}/desired")
            for wide in ("#", f"{BASE}/d/+/desired", f"{BASE}/d/{DEVICES[0]}/#", f"{BASE}/#", "+/+/+/+/+/+"):
                client.subscribe(wide)
        # Connect again while retained documents and everybody's subscriptions are there.
        for _ in range(3):
            for name in DEVICES:
                clients[name].stop()
                clients[name] = broker.device(name).start()
                service.publish(f"{BASE}/d/{name}/desired", f"again for {name}".encode(), retain=True)
        for name, client in clients.items():
            client.wait(lambda c=client, n=name: (f"{BASE}/d/{n}/desired") in c.topics())  # type: ignore[misc]
        clients[DEVICES[0]].quiet()
        for name, client in clients.items():
            assert client.topics() == {f"{BASE}/d/{name}/desired"}
            assert all(payload.endswith(name.encode()) for _, payload, _ in client.received)
            client.stop()


def test_a_device_cannot_publish_into_anothers_branch(broker: Running) -> None:
    with broker.service() as service, broker.device("cam-1") as device:
        service.subscribe(f"{BASE}/d/+/reported")
        service.subscribe(f"{BASE}/d/+/desired")
        device.publish(f"{BASE}/d/cam-2/reported", b"forged")
        device.publish(f"{BASE}/d/cam-1/desired", b"forged", retain=True)
        device.publish(f"{BASE}/d/cam-1/reported", b"true")
        service.wait(lambda: bool(service.received))
        service.quiet()
        assert [payload for _, payload, _ in service.received] == [b"true"]
        assert device.connected.is_set()


def test_a_last_will_cannot_forge_anothers_document(broker: Running) -> None:
    with broker.service() as service:
        service.subscribe(f"{BASE}/d/+/presence")
        forger, honest = broker.device("cam-1"), broker.device("cam-3")
        forger.paho.will_set(f"{BASE}/d/cam-2/presence", b"forged", qos=1, retain=True)
        honest.paho.will_set(f"{BASE}/d/cam-3/presence", b"lost", qos=1, retain=True)
        forger.start().break_off()
        honest.start().break_off()
        service.wait(lambda: f"{BASE}/d/cam-3/presence" in service.topics())
        service.quiet()
        assert [payload for _, payload, _ in service.received] == [b"lost"]


def test_a_device_cannot_take_over_anothers_session_by_its_client_id(broker: Running) -> None:
    with broker.service() as service:
        victim = broker.device("cam-2").start()
        victim.subscribe(f"{BASE}/d/cam-2/desired")
        victim.stop()
        service.publish(f"{BASE}/d/cam-2/desired", b"secret of cam-2")
        with broker.device("cam-1", client_id="cam-2") as thief:
            thief.quiet()
            assert thief.received == []
        with broker.device("cam-1", client_id="cam-2", clean=True) as vandal:
            vandal.quiet(0.1)
        with broker.device("cam-2") as back:
            back.wait(
                lambda: (f"{BASE}/d/cam-2/desired", b"secret of cam-2") in [m[:2] for m in back.received]
            )


@pytest.mark.parametrize(("user", "password"), [("cam-1", "wrong"), ("nobody", "x"), ("cam-1", "")])
def test_wrong_credentials_are_refused_and_leave_the_session_alone(
    broker: Running, user: str, password: str
) -> None:
    with broker.service() as service:
        device = broker.device("cam-1").start()
        device.subscribe(f"{BASE}/d/cam-1/desired")
        device.stop()
        service.publish(f"{BASE}/d/cam-1/desired", b"kept")
        attacker = Client(broker.port, user, password, client_id="cam-1", clean=True)
        attacker.start(accepted=False)
        attacker.stop()
        with broker.device("cam-1") as back:
            assert back.session_present
            back.wait(lambda: any(payload == b"kept" for _, payload, _ in back.received))


def test_a_peer_without_credentials_gets_nothing_and_costs_a_device_nothing_that_lasts(
    broker: Running,
) -> None:
    """Mosquitto 2.0.11 forgets the session whose client id such a peer names; retained state still comes."""
    with broker.service() as service:
        device = broker.device("cam-1").start()
        device.subscribe(f"{BASE}/d/cam-1/desired")
        device.stop()
        service.publish(f"{BASE}/d/cam-1/desired", b"kept", retain=True)
        attacker = Client(broker.port, "", "", client_id="cam-1", clean=True)
        attacker.start(accepted=False)
        attacker.stop()
        assert attacker.received == []
        with broker.device("cam-1") as back:
            back.subscribe(f"{BASE}/d/cam-1/desired")
            back.wait(lambda: any(payload == b"kept" for _, payload, _ in back.received))


def test_messages_wait_for_a_device_that_is_away(broker: Running) -> None:
    device = broker.device("cam-1").start()
    device.subscribe(f"{BASE}/d/cam-1/desired")
    device.break_off()
    with broker.service() as service:
        for number in range(20):
            service.publish(f"{BASE}/d/cam-1/desired", str(number).encode())
    with broker.device("cam-1") as back:
        back.wait(lambda: len({payload for _, payload, _ in back.received}) == 20)


def test_telemetry_waits_for_a_service_that_is_away(broker: Running) -> None:
    with broker.service() as service:
        service.subscribe(f"{BASE}/d/+/tm/+")
    with broker.device("cam-1") as device:
        for number in range(300):
            device.paho.publish(f"{BASE}/d/cam-1/tm/digits", str(number).encode(), qos=1)
        device.publish(f"{BASE}/d/cam-1/tm/digits", b"300")
    with broker.service() as back:
        back.wait(
            lambda: {payload for _, payload, _ in back.received} >= {str(n).encode() for n in range(301)}
        )


def test_what_comes_after_the_intake_was_stopped_is_for_the_next_service(broker: Running) -> None:
    received: list[bytes] = []
    transport = service_transport(broker)
    transport.start([f"{BASE}/d/+/ev"], lambda _topic, payload, _retained: received.append(payload))
    transport.wait_connected(10)
    with broker.device("cam-1") as device:
        device.subscribe(f"{BASE}/d/cam-1/ack")
        device.publish(f"{BASE}/d/cam-1/ev", b"before")
        eventually(lambda: received == [b"before"])
        transport.pause()
        device.publish(f"{BASE}/d/cam-1/ev", b"after")
        assert transport.publish(f"{BASE}/d/cam-1/ack", b"of before", retain=True)
        assert transport.flush(10)
        device.wait(lambda: (f"{BASE}/d/cam-1/ack", b"of before", False) in device.received)
    transport.stop()
    assert received == [b"before"]
    if broker.chosen.kind == FALLBACK:
        return  # amqtt forgets what was on its way when a client left; windows and reports are sent again
    again = service_transport(broker)
    again.start([f"{BASE}/d/+/ev"], lambda _topic, payload, _retained: received.append(payload))
    eventually(lambda: received[1:] == [b"after"])
    again.stop()


def test_a_second_connection_of_a_device_ends_the_first(broker: Running) -> None:
    first = broker.device("cam-1")
    lost: list[bool] = []
    first.paho.on_disconnect = lambda *_: lost.append(True)
    first.paho.reconnect_delay_set(60, 60)
    first.start()
    with broker.device("cam-1") as second:
        eventually(lambda: bool(lost))
        second.publish(f"{BASE}/d/cam-1/ev", b"here")
    first.stop()


def test_an_enrolled_device_gets_in_after_a_reload_and_nobody_is_thrown_out(broker: Running) -> None:
    with broker.device("cam-1") as there:
        ended: list[bool] = []
        there.paho.on_disconnect = lambda *_: ended.append(True)
        late = Client(broker.port, "cam-9", "new", clean=True)
        late.start(accepted=False)
        late.stop()
        users = {name: hash_password(f"password of {name}") for name in DEVICES} | {
            "cam-9": hash_password("new")
        }
        write_users(broker.home, broker.settings, users)
        assert broker.child.reload()
        with Client(broker.port, "cam-9", "new", clean=True):
            pass
        there.publish(f"{BASE}/d/cam-1/ev", b"still here")
        assert not ended


def test_retained_documents_survive_a_restart(kind: str, tmp_path: Path) -> None:
    home = create_home(tmp_path / "home")
    with running(home, kind) as first, first.service() as service:
        service.publish(f"{BASE}/d/cam-1/desired", b"kept", retain=True)
    with running(home, kind) as second:
        assert second.port == first.port
        with second.device("cam-1") as device:
            device.subscribe(f"{BASE}/d/cam-1/desired")
            device.wait(lambda: bool(device.received))
            assert device.received[0][:2] == (f"{BASE}/d/cam-1/desired", b"kept")


def test_a_broker_that_dies_is_started_again_and_the_service_reconnects(broker: Running) -> None:
    address = Address(
        host="127.0.0.1", port=broker.port, username=broker.chosen.username, password=broker.chosen.password
    )
    seen: list[bool] = []
    messages: list[str] = []
    transport = MqttTransport(address, will=Will(topic=f"{BASE}/ctl/state", payload=b"{}"))
    transport.on_connection(seen.append)
    transport.start([f"{BASE}/d/+/ev"], lambda topic, payload, retained: messages.append(topic))
    transport.wait_connected(10)
    pid = broker.child.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: seen == [True, False, True], 20)
    assert broker.child.pid not in (None, pid)
    with broker.device("cam-1") as device:
        device.publish(f"{BASE}/d/cam-1/ev", b"x")
        eventually(lambda: bool(messages))
    assert transport.publish(f"{BASE}/d/cam-1/desired", b"y", retain=True)
    assert transport.flush(5)
    transport.stop()


def test_a_burst_of_publishes_is_windowed_and_all_acknowledged(broker: Running) -> None:
    address = Address(
        host="127.0.0.1", port=broker.port, username=broker.chosen.username, password=broker.chosen.password
    )
    transport = MqttTransport(address, window=20)
    transport.start([], lambda topic, payload, retained: None)
    transport.wait_connected(10)
    for number in range(500):
        assert transport.publish(f"{BASE}/d/cam-1/ack", str(number).encode(), retain=True)
    assert transport.flush(20)
    transport.stop()
    assert not transport.publish(f"{BASE}/d/cam-1/ack", b"late")


def test_an_oversized_packet_ends_its_own_connection_only(broker: Running) -> None:
    with broker.device("cam-2") as other, broker.device("cam-1") as device:
        ended: list[bool] = []
        device.paho.on_disconnect = lambda *_: ended.append(True)
        device.paho.reconnect_delay_set(60, 60)
        device.paho.publish(f"{BASE}/d/cam-1/tm/digits", bytes(3 << 20), qos=1)
        eventually(lambda: bool(ended))
        other.publish(f"{BASE}/d/cam-2/ev", b"still here")


@pytest.mark.parametrize(
    "data", [b"", b"\x10", b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f", b"\x30\x00"]
)
def test_garbage_before_a_connect_does_not_hurt_the_others(broker: Running, data: bytes) -> None:
    with broker.device("cam-1") as device:
        with socket.create_connection(("127.0.0.1", broker.port)) as raw:
            raw.sendall(data)
            raw.settimeout(0.3)
            with suppress(OSError):
                raw.recv(16)
        device.publish(f"{BASE}/d/cam-1/ev", b"still here")
