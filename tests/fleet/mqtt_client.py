"""A small MQTT client for tests of brokers, over paho: everything that arrives is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


class Client:
    """Connects as `user`; `received` holds (topic, payload, retained) in order of arrival."""

    def __init__(
        self, port: int, user: str, password: str, *, client_id: str | None = None, clean: bool = False
    ) -> None:
        self.user = user
        self.received: list[tuple[str, bytes, bool]] = []
        self.granted: dict[int, list[int]] = {}
        self.connected = threading.Event()
        self.refused: str | None = None
        self.session_present = False
        self._port = port
        self._published: set[int] = set()
        self._changed = threading.Condition()
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id or user, clean_session=clean)
        self.paho.username_pw_set(user, password)
        self.paho.on_connect = self._on_connect
        self.paho.on_message = self._on_message
        self.paho.on_subscribe = self._on_subscribe
        self.paho.on_publish = self._on_publish

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, accepted: bool = True) -> Self:
        """Connect; checks whether the broker accepts."""
        self.paho.connect("127.0.0.1", self._port, keepalive=20)
        self.paho.loop_start()
        self.wait(lambda: self.connected.is_set() or self.refused is not None)
        assert (self.refused is None) == accepted, self.refused
        return self

    def stop(self) -> None:
        """Disconnect cleanly."""
        self.paho.disconnect()
        self.paho.loop_stop()

    def break_off(self) -> None:
        """Lose the connection without a DISCONNECT, as a power cut does."""
        self.paho.loop_stop()
        handle = self.paho.socket()
        assert handle is not None
        handle.close()

    def subscribe(self, topic_filter: str) -> list[int]:
        """Subscribe at QoS 1; the granted codes."""
        _, mid = self.paho.subscribe(topic_filter, qos=1)
        assert mid is not None
        self.wait(lambda: mid in self.granted)
        return self.granted[mid]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the acknowledgement."""
        info = self.paho.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(10)
        assert info.is_published()

    def topics(self) -> set[str]:
        """Topics of everything received."""
        return {topic for topic, _, _ in self.received}

    def wait(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until `condition` holds."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=seconds), "did not happen in time"

    def quiet(self, seconds: float = 0.4) -> None:
        """Give what should not come the time to come."""
        time.sleep(seconds)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self.refused = str(reason)
        else:
            self.session_present = flags.session_present
            self.connected.set()
        self._tell()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self.received.append((message.topic, bytes(message.payload), message.retain))
        self._tell()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, codes: Any, _properties: Any) -> None:
        self.granted[mid] = [code.value for code in codes]
        self._tell()

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        self._published.add(mid)
        self._tell()
