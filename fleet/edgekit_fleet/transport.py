"""MQTT as the service speaks it: paho, one fixed client id, a persistent session, QoS 1, 3.1.1.

The fixed client id and the persistent session make the broker keep what devices send while the
service is down. `publish` is windowed: at most `window` messages are on their way, so that nothing
piles up in memory and the broker is never flooded; paho sends them again after a reconnect. State is
in SQL, so a message that could not be handed over is not kept here: `publish` says False and the
caller publishes it again when it is told of the next connection.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from edgekit.ports import Subscriber
from edgekit_fleet.errors import BrokerError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Will:
    """A retained message the broker sends when the connection is lost."""

    topic: str
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a broker is and as whom to connect; the client id is the user name."""

    host: str
    port: int
    username: str
    password: str


class MqttTransport:
    """`edgekit.ports.Transport` over paho. `on_message` and listeners run on paho's thread.

    Args:
        address: the broker; `address.username` is also the client id.
        will: last will, if any.
        window: QoS 1 messages on their way at once.
        keepalive: seconds.
    """

    def __init__(
        self, address: Address, *, will: Will | None = None, window: int = 100, keepalive: int = 30
    ) -> None:
        self._address = address
        self._keepalive = keepalive
        self._window = threading.BoundedSemaphore(window)
        self._all_acknowledged = threading.Condition()
        self._outstanding: set[int] = set()
        self._early: set[int] = set()
        self._listeners: list[Callable[[bool], None]] = []
        self._subscriptions: tuple[str, ...] = ()
        self._on_message: Subscriber | None = None
        self._connected = threading.Event()
        self._paused = threading.Event()
        self._thread: int | None = None
        self.last_error: str | None = None
        self._client = self._make(will)

    def _make(self, will: Will | None) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._address.username,
            clean_session=False,
            manual_ack=True,
        )
        client.username_pw_set(self._address.username, self._address.password)
        client.max_inflight_messages_set(100)
        client.reconnect_delay_set(min_delay=1, max_delay=15)
        if will:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        return client

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now."""
        return self._connected.is_set()

    def start(self, subscriptions: Sequence[str], on_message: Subscriber) -> None:
        """Connect in the background, stay connected, subscribe again after each reconnect."""
        self._paused.clear()
        self._subscriptions, self._on_message = tuple(subscriptions), on_message
        self._client.on_connect = self._connect
        self._client.on_disconnect = self._disconnect
        self._client.on_message = self._message
        self._client.on_publish = self._published
        self._client.connect_async(self._address.host, self._address.port, keepalive=self._keepalive)
        self._client.loop_start()

    def wait_connected(self, seconds: float) -> None:
        """Wait for the broker.

        Raises:
            BrokerError: not reached in time; says why the last try failed.
        """
        if not self._connected.wait(seconds):
            raise BrokerError(
                f"no connection after {seconds:g} s: {self.last_error or 'nobody answers'}",
                where=f"{self._address.host}:{self._address.port}",
                remedy="is the broker running, and does it know this user?",
            )

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand a QoS 1 message over, waiting while the window is full (never on paho's own thread).

        Returns False when not connected, or when the window stayed full for 10 s.
        """
        own = threading.get_ident() == self._thread
        if not self.connected or not self._window.acquire(blocking=not own, timeout=None if own else 10.0):
            return False
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            self._window.release()
            return False
        self._sent(info.mid)
        return True

    def flush(self, seconds: float) -> bool:
        """Wait until the broker has acknowledged everything handed over; False when it did not in time."""
        with self._all_acknowledged:
            return self._all_acknowledged.wait_for(lambda: not self._outstanding, timeout=seconds)

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with True after each connect (subscriptions made) and False after each loss."""
        self._listeners.append(listener)

    def pause(self) -> None:
        """Take no more messages in: what comes is not acknowledged, so the broker keeps it."""
        self._paused.set()

    def stop(self) -> None:
        """Disconnect cleanly: the broker sends no will and keeps the session."""
        self._connected.clear()
        self._client.disconnect()
        self._client.loop_stop()
        # Without the way back to us the client is freed, and closes its sockets, with the last reference.
        self._client.on_connect = self._client.on_disconnect = None
        self._client.on_message = self._client.on_publish = None

    def _sent(self, mid: int) -> None:
        """Count a message as on its way; its acknowledgement may have come before we learned its id."""
        with self._all_acknowledged:
            if mid in self._early:
                self._early.discard(mid)
            else:
                self._outstanding.add(mid)

    def _connect(
        self, client: paho.Client, _data: Any, _flags: paho.ConnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        self._thread = threading.get_ident()
        if reason.is_failure:
            self.last_error = str(reason)
            _log.warning("broker %s:%s: %s", self._address.host, self._address.port, reason)
            return
        if self._subscriptions:
            client.subscribe([(item, 1) for item in self._subscriptions])
        self.last_error = None
        self._connected.set()
        self._tell(True)

    def _disconnect(self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:
            self.last_error = str(reason)
        was = self._connected.is_set()
        self._connected.clear()
        if was:
            self._tell(False)

    def _tell(self, connected: bool) -> None:
        for listener in list(self._listeners):
            listener(connected)

    def _message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        """Hand on, then acknowledge; a message that was still waiting when intake stopped comes again."""
        if self._paused.is_set():
            return
        if self._on_message is not None:
            self._on_message(message.topic, bytes(message.payload), message.retain)
        if not self._paused.is_set():
            client.ack(message.mid, message.qos)

    def _published(
        self, _client: paho.Client, _data: Any, mid: int, _reason: ReasonCode, _properties: Any
    ) -> None:
        with self._all_acknowledged:
            if mid in self._outstanding:
                self._outstanding.discard(mid)
            else:
                self._early.add(mid)
            self._all_acknowledged.notify_all()
        with contextlib.suppress(ValueError):  # a message of an earlier life of this session
            self._window.release()
