"""The other end of MQTT in a test: watches a device's topics, publishes to it, acknowledges on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgekit.documents import Ack
from edgekit.topics import device_topic, service_subscriptions


@dataclass(kw_only=True)
class Peer:
    """What it saw, by topic leaf, in order; `stored` are telemetry records by (boot_id, seq)."""

    client: paho.Client
    messages: list[tuple[str, Any]] = field(default_factory=list)
    stored: dict[tuple[str, int], Any] = field(default_factory=dict)
    acknowledge: bool = False
    received: int = 0

    def latest(self, leaf: str) -> Any:
        """The newest document of a leaf, None when there was none."""
        return next((body for name, body in reversed(self.messages) if name == leaf), None)

    def publish(self, leaf: str, payload: bytes, *, device: str = "dev-1", retain: bool = True) -> None:
        """Send to the device."""
        self.client.publish(device_topic("acme", device, leaf), payload, qos=1, retain=retain)

    def until(self, fine: Callable[[], bool], what: str, *, seconds: float = 30.0) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not fine():
            assert time.monotonic() < end, f"{what}: not after {seconds} s; {self.messages[-5:]}"
            time.sleep(0.02)

    def until_step(self, *steps: str, gen: int) -> Any:
        """Wait until the device reports one of `steps` for `gen`."""

        def reached() -> bool:
            report = self.latest("reported")
            return bool(report) and report["gen"] == gen and report["step"] in steps

        self.until(reached, f"gen {gen} reaches {steps}")
        return self.latest("reported")

    def _take(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        leaf = message.topic.split("/")[5]
        body: Any = json.loads(message.payload) if message.payload else {}
        self.messages.append((leaf, body))
        if leaf == "tm":
            self.received += 1
            self.stored[(body["boot_id"], body["seq"])] = body
            if self.acknowledge:
                self._acknowledge(body)

    def _acknowledge(self, body: Any) -> None:
        boot, floor = body["boot_id"], body["oldest"] - 1
        have = {seq for name, seq in self.stored if name == boot}
        while floor + 1 in have:
            floor += 1
        also = tuple(seq for seq in sorted(have) if seq > floor)
        self.publish("ack", Ack(boot_id=boot, seq=floor, also=also).to_bytes())


@contextmanager
def peer(port: int) -> Iterator[Peer]:
    """A connected peer."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="edgekit-service-acme", clean_session=False)
    other = Peer(client=client)
    ready = threading.Event()

    def connected(*_: Any) -> None:
        client.subscribe([(name, 1) for name in service_subscriptions("acme")])

    client.on_connect = connected
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = other._take
    client.reconnect_delay_set(1, 1)
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(10), "the peer is connected"
    try:
        yield other
    finally:
        client.disconnect()
        client.loop_stop()
