"""The device's MQTT link (3.1.1, paho), and nothing that decides.

One persistent session with the device's id as client id. Birth and last will are retained and carry
a persisted session counter, so that an old will that arrives late is recognised. Every incoming
topic is compared with the device's own: foreign messages are dropped and counted, whatever the broker
thinks it may deliver. After each connect the link subscribes again. Callbacks come on its thread.
"""

from __future__ import annotations

import logging
import random
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edgekit.documents import Presence
from edgekit.errors import DocumentError
from edgekit.ports import Clock
from edgekit.topics import DeviceTopic, device_subscriptions, device_topic, parse_device_topic

_LOG = logging.getLogger("edgekit.agent")
_IN_FLIGHT = 20
_QUEUED = 1_000
_LARGEST = 4 << 20
_READ = frozenset({"desired", "ack", "in"})


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the broker is, and who this device is there."""

    host: str
    port: int
    tenant: str
    device: str
    username: str
    password: str
    keepalive: int = 30


Handler = Callable[[DeviceTopic, bytes], None]


class _NoTls:
    """Stands in for `ssl` in a process without TLS (see `edgekit_agent.lean`): paho names these two in its
    except clauses, which are looked at as soon as a read or a write would block."""

    class SSLWantReadError(OSError):
        """Never raised."""

    class SSLWantWriteError(OSError):
        """Never raised."""


if getattr(paho, "ssl", None) is None:
    vars(paho)["ssl"] = _NoTls


class Link:
    """Connects, stays connected, checks what comes in.

    Args:
        address: broker and identity.
        boot_id, agent: for the presence document.
        new_session: counts connects durably; called before each.
        on_message: for every message that is this device's own.
        on_connection: True after each connect (subscribed), False after each loss.
        longest_pause: most seconds between two tries to connect.
    """

    def __init__(
        self,
        address: Address,
        *,
        boot_id: str,
        agent: str,
        clock: Clock,
        new_session: Callable[[], int],
        on_message: Handler,
        on_connection: Callable[[bool], None],
        longest_pause: float = 60.0,
    ) -> None:
        self._address, self._boot, self._agent, self._clock = address, boot_id, agent, clock
        self._new_session, self._on_message, self._listener = new_session, on_message, on_connection
        self._longest = longest_pause
        self._session = 0
        self._session_began = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.connected = False
        self.foreign = 0
        self.last_error = ""
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._address.device,
            clean_session=False,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.username_pw_set(self._address.username, self._address.password)
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.max_queued_messages_set(_QUEUED)
        client.on_connect = self._connected
        client.on_disconnect = self._lost
        client.on_message = self._incoming
        return client

    @property
    def session(self) -> int:
        """Number of this connection, counted over all boots."""
        return self._session

    @property
    def alive(self) -> bool:
        """Whether the link's thread still runs; the supervisor starts a dead one again."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Connect in the background, for as long as it takes."""
        self._thread = threading.Thread(target=self._work, name="mqtt", daemon=True)
        self._thread.start()

    def publish(self, leaf: str, payload: bytes, *, retain: bool = False, slot: str | None = None) -> bool:
        """Hand over a QoS 1 message on the device's own topic; False when not connected: nothing queued."""
        if not self.connected:
            return False
        topic = device_topic(self._address.tenant, self._address.device, leaf, slot)
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        return sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def stop(self) -> None:
        """Say goodbye (retained ``offline``) and disconnect."""
        self._stop.set()
        if self.connected:
            topic = device_topic(self._address.tenant, self._address.device, "presence")
            farewell = self._client.publish(topic, self._presence("offline"), qos=1, retain=True)
            try:
                farewell.wait_for_publish(timeout=2.0)
            except (RuntimeError, ValueError) as error:
                _LOG.warning("the farewell was not sent: %s", error)
        self._client.disconnect()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def _presence(self, state: str) -> bytes:
        return Presence(
            state=state,
            session=self._session,
            boot_id=self._boot,
            agent=self._agent,
            at=self._clock.now(),
        ).to_bytes()

    def _work(self) -> None:
        failures = 0
        while not self._stop.is_set():
            if self._connect():
                self._serve()
                failures = 0 if self._session_began else failures
            failures += 1
            pause = min(0.5 * float(2 ** min(failures, 10)), self._longest)
            self._stop.wait(pause * (0.5 + 0.5 * random.random()))

    def _connect(self) -> bool:
        """One try; the will is set anew because it names the session."""
        self._session_began = False
        self._session = self._new_session()
        topic = device_topic(self._address.tenant, self._address.device, "presence")
        self._client.will_set(topic, self._presence("lost"), qos=1, retain=True)
        try:
            self._client.connect(self._address.host, self._address.port, keepalive=self._address.keepalive)
        except (OSError, ValueError) as error:
            self._fail(f"no connection to {self._address.host}:{self._address.port}: {error}")
            return False
        return True

    def _serve(self) -> None:
        """Until the connection ends. What paho cannot digest ends the connection, never the thread."""
        try:
            self._client.loop_forever(retry_first_connection=False)
        except (OSError, RuntimeError, ValueError, struct.error, MQTTException) as error:
            self._fail(f"the client library failed: {error!r}")
        finally:
            if self.connected:
                self.connected = False
                self._listener(False)

    def _fail(self, message: str) -> None:
        if message != self.last_error:
            _LOG.warning("mqtt: %s", message)
        self.last_error = message

    def _connected(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self._fail(f"the broker refused: {reason}")
            client.disconnect()
            return
        filters: Sequence[str] = device_subscriptions(self._address.tenant, self._address.device)
        client.subscribe([(name, 1) for name in filters])
        topic = device_topic(self._address.tenant, self._address.device, "presence")
        client.publish(topic, self._presence("online"), qos=1, retain=True)
        self._session_began = self.connected = True
        self.last_error = ""
        self._listener(True)

    def _lost(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        was, self.connected = self.connected, False
        if was:
            if not self._stop.is_set():
                self._fail(f"connection lost: {reason}")
            self._listener(False)

    def _incoming(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        topic = self._own(message)
        if topic is None:
            self.foreign += 1
            _LOG.warning("mqtt: dropped a message on a foreign topic (%d so far)", self.foreign)
        else:
            self._on_message(topic, bytes(message.payload))

    def _own(self, message: paho.MQTTMessage) -> DeviceTopic | None:
        try:
            topic = parse_device_topic(message.topic)
        except (DocumentError, UnicodeDecodeError):
            return None
        mine = (topic.tenant, topic.device) == (self._address.tenant, self._address.device)
        fits = topic.leaf in _READ and len(message.payload) <= _LARGEST
        return topic if mine and fits else None


__all__ = ["Address", "Handler", "Link"]
