"""What every part of the service works with: `Fleet`, built once per process.

Parts take from it what they need (database, trust, transport, clock) and never reach into each
other; a part of the running service is a `Part`: routers to mount and tasks to start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgekit.ports import Clock, Subscriber
from edgekit_fleet.audit_head import sign_head
from edgekit_fleet.db import Database
from edgekit_fleet.home import Home, Settings
from edgekit_fleet.store import BlobStore
from edgekit_fleet.trust.repository import Repository

if TYPE_CHECKING:
    from fastapi import APIRouter


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return time.monotonic()


class ServiceTransport(Protocol):
    """`edgekit.ports.Transport` plus what the service needs to know about delivery."""

    @property
    def connected(self) -> bool: ...

    def start(self, subscriptions: Sequence[str], on_message: Subscriber) -> None: ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool: ...

    def flush(self, seconds: float) -> bool: ...

    def on_connection(self, listener: Callable[[bool], None]) -> None: ...

    def pause(self) -> None:
        """Take no more messages in; the broker keeps them for the next connection. Publishing goes on."""

    def stop(self) -> None: ...


class BrokerLink(Protocol):
    """The broker as devices are told of it."""

    @property
    def kind(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def ca(self) -> str: ...

    def admit(self, devices: Callable[[], Mapping[str, str]]) -> None:
        """Make the broker know exactly these devices (id → password hash); returns when it does."""


class Task(Protocol):
    """Something that runs while the service does. Both calls return quickly; `stop` waits a few seconds
    at most. Called on the service's event loop thread."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part adds to the service: `routers`, `tasks` (started in order, stopped in reverse) and
    `on_message`, called on the transport's thread for each message of a device."""

    routers: Sequence[APIRouter] = ()
    tasks: Sequence[Task] = ()
    on_message: Subscriber | None = None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One fleet, open: what the service and the command line work with.

    `transport` and `broker` are None where no service runs (command line on the home alone).
    """

    home: Home
    settings: Settings
    database: Database
    store: BlobStore
    repository: Repository
    clock: Clock = field(default_factory=SystemClock)
    transport: ServiceTransport | None = None
    broker: BrokerLink | None = None

    @property
    def tenant(self) -> str:
        """The tenant, a level of every topic."""
        return self.settings.tenant


def open_fleet(
    home: Home,
    *,
    clock: Clock | None = None,
    transport: ServiceTransport | None = None,
    broker: BrokerLink | None = None,
    keys: Path | None = None,
) -> Fleet:
    """Open an initialised home and bring its tables to the newest version.

    `keys` is the folder of the signing keys when they are kept outside the home.

    Raises:
        HomeError: not initialised, or its settings are wrong.
        StorageError: the database cannot be used.
    """
    settings = home.require().settings()
    database = Database(home.database_url, committed=lambda session: sign_head(home, session))
    database.upgrade()
    store = BlobStore(home.blobs)
    chosen = clock or SystemClock()
    return Fleet(
        home=home,
        settings=settings,
        database=database,
        store=store,
        repository=Repository(home, expiry=settings.expiry, now=chosen.now, keys=keys),
        clock=chosen,
        transport=transport,
        broker=broker,
    )
