"""The fleet home: one folder that holds everything a fleet is, and where each thing lies in it.

::

    fleet.toml          settings (tenant, broker, expiry of metadata), written by ``fleet init``
    fleet.db            all state (SQLite), with fleet.db-wal beside it
    operator.token      bearer token of the operators, mode 0600
    keys/               private signing keys, mode 0600 (the root key may be kept elsewhere)
    tuf/metadata/       published TUF metadata, consistent snapshots
    tuf/targets/        published TUF targets
    blobs/sha256/xx/    content-addressed bytes
    papers/             measurements and reports of the packages
    audit.head          the signed head of the audit trail
    broker/             generated configuration, credentials, ACL, certificates and persistence of the broker
    service.json        address of the running service, absent when none runs

Reads and writes no settings of other processes; the environment is read by the command line only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import DocumentError, StorageError
from edgekit.files import atomic_write, read_bytes
from edgekit.tomlfile import Table, read_toml
from edgekit.topics import check_word
from edgekit_fleet.errors import BusyError, HomeError

ENVIRONMENT = "EDGEKIT_HOME"
BROKERS = ("auto", "mosquitto", "fallback")
_TEMPLATE = """\
# Settings of this fleet; changes count from the next start of `edgekit fleet serve`.

[fleet]
tenant = "{tenant}"
# Address devices reach the service at; empty: the one they used to enrol.
public_url = ""

[broker]
# auto: Mosquitto when it is found, else the fallback (development, about 500 devices).
kind = "auto"
host = "127.0.0.1"
# 0: a free port is chosen at the first start and kept.
port = 0
# true: devices speak TLS with Mosquitto and check its identity; CA and certificate are made at the first
# start, and devices that enrol are given the CA. The service itself then uses a port on loopback.
tls = false
# Name or address devices reach the broker at; empty: the host part of the service's address.
public_host = ""
# Folder that holds the mosquitto program when it is not on the PATH.
folder = ""
# Users who may send samples to devices in stream mode (topics …/in/<slot>) and read the predictions.
producers = []

[trust]
timestamp_days = 7
snapshot_days = 30
targets_days = 365
root_days = 365
"""


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """Which broker carries MQTT and where it listens."""

    kind: str = "auto"
    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    public_host: str = ""
    folder: str = ""
    producers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """Days after which each TUF role's metadata expires."""

    timestamp: int = 7
    snapshot: int = 30
    targets: int = 365
    root: int = 365


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``fleet.toml`` says, with defaults filled in."""

    tenant: str = "default"
    public_url: str = ""
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    expiry: Expiry = field(default_factory=Expiry)


@dataclass(frozen=True, kw_only=True)
class Home:
    """Paths of one fleet home. Making the value touches nothing on disk."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """``fleet.toml``."""
        return self.path / "fleet.toml"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "fleet.db"

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return f"sqlite:///{self.database}"

    @property
    def operator_token_file(self) -> Path:
        """The operators' bearer token."""
        return self.path / "operator.token"

    @property
    def keys(self) -> Path:
        """Private keys."""
        return self.path / "keys"

    @property
    def metadata(self) -> Path:
        """Published TUF metadata."""
        return self.path / "tuf" / "metadata"

    @property
    def targets(self) -> Path:
        """Published TUF targets."""
        return self.path / "tuf" / "targets"

    @property
    def blobs(self) -> Path:
        """Content-addressed bytes."""
        return self.path / "blobs"

    @property
    def audit_head(self) -> Path:
        """The signed head of the audit trail."""
        return self.path / "audit.head"

    @property
    def papers(self) -> Path:
        """Measurements and reports of packages, which lie outside their digests."""
        return self.path / "papers"

    @property
    def broker(self) -> Path:
        """Everything the broker reads and writes."""
        return self.path / "broker"

    @property
    def service_file(self) -> Path:
        """Address of the running service."""
        return self.path / "service.json"

    @property
    def initialised(self) -> bool:
        """Whether `create_home` has run here."""
        return self.settings_file.is_file()

    def require(self) -> Home:
        """Itself, when initialised.

        Raises:
            HomeError: there is no fleet here.
        """
        if not self.initialised:
            raise HomeError(
                "there is no fleet here",
                where=str(self.path),
                remedy=f"edgekit fleet init --home {self.path}",
                code="no_home",
            )
        return self

    def settings(self) -> Settings:
        """Read ``fleet.toml``.

        Raises:
            HomeError: not initialised, not TOML, an unknown key or a wrong value.
        """
        self.require()
        return _settings(read_toml(self.settings_file, HomeError))

    def operator_token(self) -> str:
        """The operators' token.

        Raises:
            StorageError: missing or not readable by this user.
        """
        return read_bytes(self.operator_token_file, limit=4096).decode("ascii", "replace").strip()

    @contextlib.contextmanager
    def locked(self, name: str, *, seconds: float = 20.0) -> Iterator[None]:
        """Hold the lock `name` of this home against other processes; waits up to `seconds`.

        Raises:
            BusyError: another process keeps it.
        """
        path = self.path / f".{name}.lock"
        try:
            stream = path.open("a+b")
        except OSError as error:
            raise StorageError(f"cannot lock: {error.strerror}", where=str(path)) from error
        with stream:
            deadline = time.monotonic() + seconds
            while not _try_lock(stream.fileno()):
                if time.monotonic() >= deadline:
                    raise BusyError(
                        "another edgekit process works here",
                        where=str(path),
                        remedy="wait for it to end, or stop it",
                    )
                time.sleep(0.05)
            yield

    def write_service_file(self, facts: Mapping[str, Any]) -> None:
        """Record where the running service is reached."""
        atomic_write(self.service_file, json.dumps(facts, indent=2).encode() + b"\n", mode=0o600)

    def running_service(self) -> dict[str, Any] | None:
        """What `write_service_file` recorded, None when no service runs (a dead one's file is ignored)."""
        try:
            facts = json.loads(self.service_file.read_bytes())
        except (OSError, ValueError):
            return None
        pid = facts.get("pid") if isinstance(facts, dict) else None
        return facts if isinstance(pid, int) and _alive(pid) else None


def create_home(path: Path, *, tenant: str = "default") -> Home:
    """Make a fleet home (or complete one): folders, ``fleet.toml``, operator token. Idempotent.

    Raises:
        StorageError: the folder cannot be written.
        HomeError: `tenant` may not stand in a topic.
    """
    _word(tenant, "tenant")
    home = Home(path=path.absolute())
    try:
        home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (home.keys, home.broker):
            folder.mkdir(exist_ok=True, mode=0o700)
        for folder in (home.metadata, home.targets, home.blobs):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the fleet home: {error.strerror}", where=str(path)) from error
    if not home.operator_token_file.exists():
        atomic_write(home.operator_token_file, (secrets.token_hex(32) + "\n").encode(), mode=0o600)
    if not home.settings_file.exists():
        atomic_write(home.settings_file, _TEMPLATE.format(tenant=tenant).encode())
    return home


def _settings(table: Table) -> Settings:
    fleet, broker, trust = table.table("fleet"), table.table("broker"), table.table("trust")
    tenant = fleet.text("tenant", "default")
    _word(tenant, "fleet.toml: fleet.tenant")
    settings = Settings(
        tenant=tenant,
        public_url=fleet.text("public_url", ""),
        broker=BrokerSettings(
            kind=broker.text("kind", "auto", allowed=BROKERS),
            host=broker.text("host", "127.0.0.1"),
            port=_port(broker),
            tls=broker.flag("tls", False),
            public_host=broker.text("public_host", ""),
            folder=broker.text("folder", ""),
            producers=broker.texts("producers"),
        ),
        expiry=Expiry(
            timestamp=trust.integer("timestamp_days", 7, low=1),
            snapshot=trust.integer("snapshot_days", 30, low=1),
            targets=trust.integer("targets_days", 365, low=1),
            root=trust.integer("root_days", 365, low=1),
        ),
    )
    for name in settings.broker.producers:
        _word(name, "fleet.toml: broker.producers")
    for part in (fleet, broker, trust, table):
        part.finish()
    return settings


def _word(text: str, where: str) -> None:
    try:
        check_word(text, where=where)
    except DocumentError as error:
        raise HomeError(error.message, where=where) from error


def _port(table: Table) -> int:
    port = table.integer("port", 0)
    if port > 65_535:
        raise table.fail("port", f"a port from 0 to 65535 was expected, not {port}")
    return port


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
