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
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edgekit.documents import EnrolAnswer, Presence
from edgekit.errors import DocumentError
from edgekit.ports import Clock
from edgekit.topics import DeviceTopic, device_subscriptions, device_topic, parse_device_topic
from edgekit_agent.config import SYSTEM, Config
from edgekit_agent.errors import ConfigError

if TYPE_CHECKING:
    import ssl

_LOG = logging.getLogger("edgekit.agent")
_IN_FLIGHT = 20
_QUEUED = 1_000
_LARGEST = 4 << 20
_READ = frozenset({"desired", "ack", "in", "cmd"})
_PEM = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How the broker's identity is checked: by `ca` (PEM, or the path of a file), the system's certificates
    when empty. `cert` and `key` (paths) are this device's own, where the broker asks for them."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """The context of a connection; the name of the broker is always checked.

        Raises:
            ConfigError: a file is missing or holds no certificate.
        """
        import ssl

        pem = self.ca if _PEM in self.ca else ""
        where = "the enrolment's certificate" if pem else self.ca
        try:
            context = ssl.create_default_context(cafile=None if pem else self.ca or None, cadata=pem or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert:
                where = self.cert
                context.load_cert_chain(self.cert, self.key or None, password=_no_password)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no usable certificate: {error}",
                where=f"mqtt: {where}",
                remedy="PEM files are needed: ca, and with cert its key",
            ) from error
        return context


def tls_of(config: Config, identity: EnrolAnswer) -> Tls | None:
    """How the broker's identity is checked: as configured, else as enrolled; None without TLS."""
    if not (config.mqtt_ca or config.mqtt_cert or identity.mqtt_ca):
        return None
    ca = "" if config.mqtt_ca == SYSTEM else config.mqtt_ca or identity.mqtt_ca
    return Tls(ca=ca, cert=config.mqtt_cert, key=config.mqtt_key)


def _no_password() -> str:
    """Called where a private key is encrypted; nobody is there to be asked."""
    raise ValueError("the private key has a password")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the broker is, who this device is there, and how its identity is checked (None: no TLS)."""

    host: str
    port: int
    tenant: str
    device: str
    username: str
    password: str
    keepalive: int = 30
    tls: Tls | None = None


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

    Raises:
        ConfigError: TLS is wanted and its certificates cannot be used.
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
        if self._address.tls is not None:
            client.tls_set_context(self._address.tls.context())
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
        if not self._stop.is_set() and (was or reason.is_failure):
            self._fail(f"connection {'lost' if was else 'closed by the broker'}: {reason}")
        if was:
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


__all__ = ["Address", "Handler", "Link", "Tls", "tls_of"]
