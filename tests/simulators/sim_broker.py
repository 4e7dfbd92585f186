"""A broker in memory behind `edgekit.ports.Transport`: retained messages, persistent sessions, QoS 1.

Nothing moves until `pump` is called, so a test decides when and, with `chaos`, in which order and how
often messages arrive.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekit.ports import Subscriber


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message on its way to one client."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(kw_only=True)
class Chaos:
    """Delivers in any order (per pump) and some twice, as QoS 1 after reconnects may."""

    random: random.Random
    duplicate: float = 0.2
    shuffle: bool = True


@dataclass
class SimBroker:
    """All clients of one simulated broker. `up` False: nobody can publish, sessions keep."""

    up: bool = True
    chaos: Chaos | None = None
    retained: dict[str, bytes] = field(default_factory=dict)
    clients: dict[str, SimTransport] = field(default_factory=dict)
    published: int = 0
    routes: dict[str, list[SimTransport]] = field(default_factory=dict)

    def transport(self, name: str) -> SimTransport:
        """The client of this name; the same name again takes its session over."""
        old = self.clients.get(name)
        new = SimTransport(self, name)
        if old is not None:
            new.inbox = old.inbox
        self.clients[name] = new
        self.routes.clear()
        return new

    def set_up(self, up: bool, *, lose_retained: bool = False) -> None:
        """Stop or start the broker."""
        self.up = up
        if lose_retained:
            self.retained.clear()
        for client in list(self.clients.values()):
            client.tell(up)

    def take(self, topic: str, payload: bytes, retain: bool) -> None:
        """A client publishes."""
        self.published += 1
        if retain:
            self.retained[topic] = payload
        if topic not in self.routes:
            # A device's own topics go to nobody else here: only it and the clients with wildcards are asked.
            owner = topic.split("/")[4:5]
            asked = [c for name, c in self.clients.items() if name in owner or "+" in str(c.filters[:1])]
            self.routes[topic] = [client for client in asked if client.wants(topic)]
        for client in self.routes[topic]:
            client.inbox.append(Message(topic=topic, payload=payload, retained=False))

    def pump(self, only: str | None = None) -> int:
        """Deliver what is queued for clients that are there; returns how many messages."""
        if not self.up:
            return 0
        moved = 0
        for name, client in list(self.clients.items()):
            if only is None or only == name:
                moved += client.deliver(self.chaos)
        return moved


class SimTransport:
    """`edgekit_fleet.context.ServiceTransport` and `edgekit.ports.Transport` in memory."""

    def __init__(self, broker: SimBroker, name: str) -> None:
        self._broker, self.name = broker, name
        self.inbox: deque[Message] = deque()
        self.filters: tuple[str, ...] = ()
        self._on_message: Subscriber | None = None
        self._listeners: list[Callable[[bool], None]] = []
        self._paused = False

    @property
    def connected(self) -> bool:
        """Whether the broker is reached."""
        return self._broker.up and self._on_message is not None

    def start(self, subscriptions: Sequence[str], on_message: Subscriber) -> None:
        """Subscribe; retained messages come first."""
        self._paused = False
        if self.filters != tuple(subscriptions):
            wild = any("+" in item for item in subscriptions[:1])
            own = [t for t in self._broker.routes if wild or f"/{self.name}/" in t]
            for topic in own:
                del self._broker.routes[topic]
        self.filters, self._on_message = tuple(subscriptions), on_message
        for topic, payload in sorted(self._broker.retained.items()):
            if self.wants(topic):
                self.inbox.append(Message(topic=topic, payload=payload, retained=True))
        self.tell(self._broker.up)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand over; False when the broker is down."""
        if not self.connected:
            return False
        self._broker.take(topic, payload, retain)
        return True

    def flush(self, seconds: float) -> bool:
        """Everything handed over has been taken."""
        return self._broker.up

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with each change."""
        self._listeners.append(listener)

    def tell(self, connected: bool) -> None:
        """Tell the listeners."""
        for listener in self._listeners:
            listener(connected)

    def pause(self) -> None:
        """Take no more messages in; they stay queued."""
        self._paused = True

    def stop(self) -> None:
        """Go away; the session stays."""
        self._on_message = None

    def wants(self, topic: str) -> bool:
        """Whether a subscription matches."""
        return any(_matches(pattern, topic) for pattern in self.filters)

    def deliver(self, chaos: Chaos | None) -> int:
        """Hand the queued messages to the subscriber."""
        if self._on_message is None or self._paused:
            return 0
        batch = list(self.inbox)
        self.inbox.clear()
        if chaos is not None:
            batch += [m for m in batch if chaos.random.random() < chaos.duplicate]
            if chaos.shuffle:
                chaos.random.shuffle(batch)
        for message in batch:
            self._on_message(message.topic, message.payload, message.retained)
        return len(batch)


def _matches(pattern: str, topic: str) -> bool:
    ours, theirs = pattern.split("/"), topic.split("/")
    if len(ours) != len(theirs):
        return False
    return all(a in ("+", b) for a, b in zip(ours, theirs, strict=True))
