"""`edgekit fleet serve`: broker, transport and HTTP of one home, until told to stop.

Order: tables, broker, its users, transport, HTTP. The address is written to ``service.json`` once
everything answers, which is what scripts wait for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import uvicorn
from sqlalchemy.orm import Session

from edgekit.documents import ControllerState
from edgekit.errors import UnavailableError
from edgekit.topics import controller_topic
from edgekit_fleet.broker.child import BrokerChild
from edgekit_fleet.broker.choice import FALLBACK, FALLBACK_LIMIT, Chosen, choose_broker
from edgekit_fleet.broker.link import Link
from edgekit_fleet.context import Fleet, open_fleet
from edgekit_fleet.db.tables import MetaRow
from edgekit_fleet.enrolment import password_hashes
from edgekit_fleet.errors import ConflictError, HomeError
from edgekit_fleet.home import Home
from edgekit_fleet.service.app import create_app
from edgekit_fleet.transport import Address, MqttTransport, Will

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Where the service is reached, for the command line to print."""

    url: str
    broker: str
    mqtt_host: str
    mqtt_port: int


def serve(
    home: Home,
    *,
    host: str = "127.0.0.1",
    port: int = 8420,
    broker: str | None = None,
    ready: Callable[[Serving], None] | None = None,
) -> None:
    """Run the service until SIGTERM or SIGINT.

    Args:
        home: an initialised home with keys.
        host: HTTP address; loopback by default.
        port: HTTP port, 0 for a free one.
        broker: ``auto``, ``mosquitto``, ``fallback`` or a URL; the home's setting by default.
        ready: called once everything answers.

    Raises:
        HomeError: not initialised, or without keys.
        ConflictError: a service runs on this home already, or the HTTP port is taken.
        BrokerError: the broker does not come up.
    """
    with _only_one(home.require()), _listener(host, port) as listener, opened(home, broker=broker) as fleet:
        assert fleet.broker is not None
        address = listener.getsockname()
        serving = Serving(
            url=f"http://{_bracketed(address[0])}:{address[1]}",
            broker=fleet.broker.kind,
            mqtt_host=fleet.broker.host,
            mqtt_port=fleet.broker.port,
        )
        config = uvicorn.Config(
            create_app(fleet), log_level="warning", access_log=False, server_header=False, lifespan="on"
        )
        server = _Server(config, lambda: _announce(home, serving, ready))
        try:
            with _surviving_signals():
                server.run(sockets=[listener])
        finally:
            home.service_file.unlink(missing_ok=True)
        if not server.started:
            raise UnavailableError("the service did not start; the log says why", where=serving.url)


@contextlib.contextmanager
def opened(home: Home, *, broker: str | None = None) -> Iterator[Fleet]:
    """A fleet with a running broker and a transport that is not started yet; all ended at the exit."""
    fleet = open_fleet(home)
    if not fleet.repository.exists:
        raise HomeError(
            "there are no signing keys yet",
            where=str(home.path),
            remedy=f"edgekit key init --home {home.path}",
            code="no_keys",
        )
    with contextlib.closing(fleet.database), contextlib.ExitStack() as stack:
        settings = fleet.settings
        wanted = broker or settings.broker.kind
        chosen = choose_broker(home, settings, wanted, password_hashes(fleet))
        child = BrokerChild(chosen.launch) if chosen.launch else None
        if chosen.kind == FALLBACK:
            _log.warning("fallback broker: for development, up to about %d devices", FALLBACK_LIMIT)
        if child is not None:
            child.start()
            stack.callback(child.stop)
        transport = _transport(fleet, chosen)
        yield replace(fleet, transport=transport, broker=Link(home, settings, chosen, child))


def _transport(fleet: Fleet, chosen: Chosen) -> MqttTransport:
    """The service's connection, with its birth at every connect and its will."""
    with fleet.database.write() as session:
        epoch = _next_epoch(session)
    topic = controller_topic(fleet.tenant)

    def state(name: str) -> bytes:
        return ControllerState(state=name, epoch=epoch, at=fleet.clock.now()).to_bytes()

    transport = MqttTransport(
        Address(host=chosen.host, port=chosen.port, username=chosen.username, password=chosen.password),
        will=Will(topic=topic, payload=state("offline")),
    )

    def birth(connected: bool) -> None:
        if connected:
            transport.publish(topic, state("online"), retain=True)

    transport.on_connection(birth)
    return transport


def _next_epoch(session: Session) -> int:
    row = session.get(MetaRow, "epoch")
    if row is None:
        row = MetaRow(key="epoch", value="0")
        session.add(row)
    row.value = str(int(row.value) + 1)
    return int(row.value)


class _Server(uvicorn.Server):
    """Says when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()


def _announce(home: Home, serving: Serving, ready: Callable[[Serving], None] | None) -> None:
    home.write_service_file(
        {
            "url": serving.url,
            "pid": os.getpid(),
            "broker": serving.broker,
            "mqtt_host": serving.mqtt_host,
            "mqtt_port": serving.mqtt_port,
        }
    )
    if ready is not None:
        ready(serving)


@contextlib.contextmanager
def _surviving_signals() -> Iterator[None]:
    """Uvicorn raises the signals that ended it again; without this they would skip our own clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, lambda *_: None) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextlib.contextmanager
def _only_one(home: Home) -> Iterator[None]:
    running = home.running_service()
    if running is not None and running["pid"] != os.getpid():
        raise ConflictError(
            f"a service runs on this home already (process {running['pid']})",
            where=str(running.get("url")),
            remedy="stop it first",
            code="already_running",
        )
    with home.locked("service", seconds=5):
        yield


@contextlib.contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ConflictError(
            f"the HTTP port cannot be used: {error.strerror}",
            where=f"{host}:{port}",
            remedy="choose another with --port, or 0 for a free one",
            code="port_taken",
        ) from error
    with listener:
        yield listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
