"""The pip-only fallback broker: amqtt 0.12.1 with what it lacks, for development on loopback.

Run as ``python -m edgekit_fleet.broker.fallback --port … --passwords … --acl … --state …``. As released,
amqtt would not do here; `GuardedBroker` changes exactly this:

1. a connecting client is sent retained messages of its own subscriptions only (amqtt: of everybody's);
2. the client id is the user name, and nothing of a session is touched before the password was checked
   (amqtt looks sessions up by an unauthenticated client id, and deletes them);
3. publish, subscribe, delivery and **last will** are checked against the ACL, and a filter must lie
   wholly inside what may be read;
4. tables that change while being walked are walked as copies;
5. a second connection of a client ends the first; a client that is silent for too long is dropped;
   a packet of more than 1 MiB ends its connection;
6. retained messages survive a restart (sessions do not: devices send again what was not acknowledged).

Limits: MQTT 3.1.1, about 500 devices, loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ipaddress
import json
import logging
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from amqtt.adapters import ReaderAdapter, StreamReaderAdapter, StreamWriterAdapter, WriterAdapter
from amqtt.broker import Broker, RetainedApplicationMessage
from amqtt.contexts import Action, BrokerConfig, ListenerConfig
from amqtt.errors import AMQTTError, MQTTError
from amqtt.mqtt.connack import BAD_USERNAME_PASSWORD, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from edgekit.errors import EdgekitError
from edgekit.files import atomic_write, read_bytes
from edgekit_fleet.broker.acl import AccessList
from edgekit_fleet.broker.child import RELOADED
from edgekit_fleet.broker.credentials import check_password, read_password_file
from edgekit_fleet.broker.files import MAX_PACKET

SAVE_SECONDS = 5.0
GRACE_SECONDS = 20
_LISTENER = "default"


class SteadyDict(dict[str, Any]):
    """A dict that is walked as a copy, because amqtt awaits inside its loops."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().keys()))

    def items(self) -> Any:
        """A copy of the items."""
        return list(super().items())

    def values(self) -> Any:
        """A copy of the values."""
        return list(super().values())


class CappedReader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt has no types
    """Refuses to read more at once than a packet may have."""

    async def read(self, n: int = -1) -> bytes:
        """Read `n` bytes; ends the connection when that is too much."""
        if n > MAX_PACKET:
            raise AMQTTError(f"a packet of {n} bytes; at most {MAX_PACKET} are allowed")
        data: bytes = await super().read(n)
        return data


class GuardedHandler(BrokerProtocolHandler):  # type: ignore[misc]  # amqtt has no types
    """Drops a client that is silent for longer than its keep-alive and grace."""

    def handle_read_timeout(self) -> None:
        """Treat silence as a lost connection, so that the last will is sent."""
        self._lost = asyncio.ensure_future(self.handle_connection_closed())


class Authority:
    """Users and rules as the files have them; `load` reads them again."""

    def __init__(self, passwords: Path, access: Path) -> None:
        self._passwords, self._access = passwords, access
        self._users: dict[str, str] = {}
        self._rules = AccessList(rules=())

    def load(self) -> None:
        """Read both files; on an error what was known before stays."""
        users = read_password_file(self._passwords)
        rules = AccessList.parse(read_bytes(self._access).decode("utf-8", "replace"))
        self._users, self._rules = users, rules

    def knows(self, user: str | None, password: str | None) -> bool:
        """Whether user and password fit."""
        return check_password(password or "", self._users.get(user or ""))

    def allows(self, user: str | None, topic: str, action: Action) -> bool:
        """Whether `user` may do `action` on `topic` (a filter for subscribe)."""
        name = user or ""
        if action == Action.SUBSCRIBE:
            return self._rules.may_subscribe(name, topic)
        if action == Action.RECEIVE:
            return self._rules.may_read(name, topic)
        return self._rules.may_write(name, topic)


class GuardedBroker(Broker):  # type: ignore[misc]  # amqtt has no types
    """amqtt's broker with the changes the module's docstring lists."""

    def __init__(self, *, host: str, port: int, authority: Authority, state: Path) -> None:
        listener = ListenerConfig(bind=f"{host}:{port}")
        super().__init__(
            BrokerConfig(listeners={_LISTENER: listener}, plugins={}, timeout_disconnect_delay=GRACE_SECONDS)
        )
        self._authority = authority
        self._state = state
        self._saved: dict[str, Any] = {}
        self._sessions = SteadyDict()
        self._subscriptions = SteadyDict()
        self._retained_messages = SteadyDict()

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """A TCP connection."""
        await self._client_connected(listener_name, CappedReader(reader), StreamWriterAdapter(writer))

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        """Read CONNECT; check the password first, only then look at sessions."""
        handler, session = await GuardedHandler.init_from_connect(reader, writer, self.plugins_manager)
        if not self._authority.knows(session.username, session.password):
            await ConnackPacket.build(0, BAD_USERNAME_PASSWORD).to_stream(writer)
            await writer.close()
            raise MQTTError(f"{remote_address}:{remote_port}: unknown user or wrong password")
        session.client_id = session.username
        if session.will_flag and not self._may_will(session):
            session.will_flag = False
        await self._end_connection_of(session.client_id)
        session.parent = 0
        if session.clean_session:
            await self._delete_session(session.client_id)
        elif session.client_id in self._sessions:
            session = _continued(self._sessions[session.client_id][0], session)
        if session.keep_alive > 0:
            session.keep_alive += GRACE_SECONDS
        return handler, session

    async def _authenticate(self, session: Session, _listener: ListenerConfig) -> bool:
        """Done before the session was made."""
        return True

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        return self._authority.allows(session.username, topic, action)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Only for a subscription that this very session holds."""
        holders = self._subscriptions.get(subscription[0], ())
        granted = next((qos for holder, qos in holders if holder.client_id == session.client_id), None)
        if granted is not None:
            await super()._publish_retained_messages_for_subscription((subscription[0], granted), session)

    def _may_will(self, session: Session) -> bool:
        topic = session.will_topic or ""
        return self._authority.allows(session.username, topic, Action.PUBLISH)

    async def _end_connection_of(self, client_id: str) -> None:
        """End an older connection of the same client and wait until its session is at rest."""
        session, handler = self._sessions.get(client_id, (None, None))
        if session is None or session.transitions.state != "connected":
            return
        await handler.handle_connection_closed()
        for _ in range(200):
            if session.transitions.state != "connected":
                return
            await asyncio.sleep(0.01)

    def restore(self) -> None:
        """Take in the retained messages of an earlier run; a damaged file is left out."""
        with contextlib.suppress(EdgekitError, ValueError, TypeError, AttributeError):
            kept = json.loads(read_bytes(self._state, limit=1 << 30))
            for topic, data in kept.items():
                message = RetainedApplicationMessage(None, topic, base64.b64decode(data), 1)
                self._retained_messages[topic] = message

    def save(self) -> None:
        """Write the retained messages, when they have changed."""
        kept = {topic: bytes(item.data) for topic, item in self._retained_messages.items()}
        if kept != self._saved:
            body = {topic: base64.b64encode(data).decode() for topic, data in kept.items()}
            atomic_write(self._state, json.dumps(body).encode(), mode=0o600)
            self._saved = kept


def _continued(known: Session, incoming: Session) -> Session:
    """The session a client comes back to, with what its new CONNECT says."""
    for name in ("will_flag", "will_message", "will_topic", "will_qos", "will_retain", "keep_alive"):
        setattr(known, name, getattr(incoming, name))
    known.username, known.password = incoming.username, incoming.password
    known.clean_session = incoming.clean_session
    known.remote_address, known.remote_port = incoming.remote_address, incoming.remote_port
    known.parent = 1
    return known


async def serve(*, host: str, port: int, authority: Authority, state: Path) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads users and rules again."""
    loop = asyncio.get_running_loop()
    broker = GuardedBroker(host=host, port=port, authority=authority, state=state)
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, partial(_reload, authority))
    await broker.start()
    broker.restore()
    print(f"fallback broker (amqtt) on {host}:{port}", file=sys.stderr, flush=True)
    while not stopped.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), SAVE_SECONDS)
        _save(broker)
    await broker.shutdown()


def _save(broker: GuardedBroker) -> None:
    try:
        broker.save()
    except EdgekitError as error:
        print(f"cannot save retained messages: {error}", file=sys.stderr, flush=True)


def _reload(authority: Authority) -> None:
    try:
        authority.load()
    except EdgekitError as error:
        print(f"cannot read users and rules: {error}", file=sys.stderr, flush=True)
        return
    print(f"{RELOADED}.", file=sys.stderr, flush=True)


def main() -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser(description="edgekit's fallback broker")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    for name in ("--passwords", "--acl", "--state"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    if not ipaddress.ip_address(given.host).is_loopback:
        parser.error("the fallback broker listens on loopback only; install mosquitto for anything else")
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    authority = Authority(given.passwords, given.acl)
    authority.load()
    asyncio.run(serve(host=given.host, port=given.port, authority=authority, state=given.state))


if __name__ == "__main__":
    main()
