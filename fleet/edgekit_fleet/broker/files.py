"""The files a broker of this fleet reads: configuration, password file, ACL, port.

Settings and why: ``max_inflight_messages 0`` and ``max_queued_messages 1000000``, because the defaults
acknowledge telemetry to devices and then drop it; never ``max_queued_messages 0``, because then one
denied publish closes the connection; ``use_username_as_clientid``, because otherwise one device could
take over another's session by using its client id, and would be sent what is queued there. What remains
with mosquitto 2.0.11: a peer *without* user name that names a device's client id is refused, but the
broker forgets that device's session; desired state is retained and telemetry is sent again until the
service has acknowledged it, so nothing is lost by it.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import StorageError
from edgekit.files import atomic_write, read_bytes
from edgekit_fleet.broker.acl import fleet_access
from edgekit_fleet.broker.certificates import TlsFiles, ensure_certificates
from edgekit_fleet.broker.credentials import (
    hash_password,
    producer_password,
    read_password_file,
    service_password,
    service_user,
    write_password_file,
)
from edgekit_fleet.errors import BrokerError
from edgekit_fleet.home import Home, Settings

_LASTING_PORTS = range(20_000, 32_000)  # below the ephemeral ranges of Linux and macOS

MAX_PACKET = 1_048_576
LOOPBACK = "127.0.0.1"
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Where the broker listens: for devices at `host` and `port`, with TLS if the service has an
    `inner_port` of its own on loopback, without where it has not."""

    host: str
    port: int
    inner_port: int | None = None

    @property
    def service(self) -> tuple[str, int]:
        """Where the service connects."""
        return (self.host, self.port) if self.inner_port is None else (LOOPBACK, self.inner_port)


@dataclass(frozen=True, kw_only=True)
class BrokerFiles:
    """Paths of one home's broker files."""

    home: Home

    @property
    def configuration(self) -> Path:
        """``mosquitto.conf``."""
        return self.home.broker / "mosquitto.conf"

    @property
    def passwords(self) -> Path:
        """The password file."""
        return self.home.broker / "passwords"

    @property
    def access(self) -> Path:
        """The ACL file."""
        return self.home.broker / "acl"

    @property
    def data(self) -> Path:
        """Folder of the broker's persistence."""
        return self.home.broker / "data"

    @property
    def port(self) -> Path:
        """The port, once chosen."""
        return self.home.broker / "port"

    @property
    def inner_port(self) -> Path:
        """The service's own port on loopback, once chosen (TLS only)."""
        return self.home.broker / "inner_port"

    @property
    def tls(self) -> TlsFiles:
        """CA, server certificate and their keys (TLS only)."""
        return TlsFiles(folder=self.home.broker / "tls")

    @property
    def pid(self) -> Path:
        """Process id of the running child."""
        return self.home.broker / "pid"


def write_users(home: Home, settings: Settings, devices: Mapping[str, str]) -> None:
    """Write password file and ACL for `devices` (id → hash), the service and the producers."""
    files = BrokerFiles(home=home)
    known = read_password_file(files.passwords) if files.passwords.exists() else {}
    users = dict(devices)
    own = {service_user(settings.tenant): service_password(home, settings.tenant)}
    own |= {name: producer_password(home, name) for name in settings.broker.producers}
    for name, password in own.items():
        # An unchanged line keeps its salt, so that a reload disconnects nobody.
        users[name] = known.get(name) or hash_password(password)
    write_password_file(files.passwords, users)
    access = fleet_access(
        tenant=settings.tenant,
        service=service_user(settings.tenant),
        producers=settings.broker.producers,
    )
    atomic_write(files.access, access.to_text().encode(), mode=0o600)


def listeners_of(home: Home, settings: Settings) -> Listeners:
    """The ports of this home's broker, chosen at its first start.

    Raises:
        BrokerError: the host is no address of this machine, or TLS is on and no name is known.
    """
    broker, files = settings.broker, BrokerFiles(home=home)
    port = chosen_port(files.port, host=broker.host, wanted=broker.port)
    if not broker.tls:
        return Listeners(host=broker.host, port=port)
    if not broker.public_host and broker.host in EVERYWHERE:
        raise BrokerError(
            "with TLS the name that devices reach the broker at must be known",
            where="fleet.toml: broker.public_host",
            remedy="set it to the name or address that devices use",
            code="no_public_host",
        )
    inner = chosen_port(files.inner_port, host=LOOPBACK, wanted=0)
    return Listeners(host=broker.host, port=port, inner_port=inner)


def write_certificates(home: Home, settings: Settings) -> TlsFiles:
    """Make CA and server certificate, good for the names in the settings and for loopback."""
    names = {settings.broker.public_host, settings.broker.host, "localhost", LOOPBACK, "::1"}
    return ensure_certificates(BrokerFiles(home=home).tls.folder, names.difference(EVERYWHERE))


def write_configuration(home: Home, listeners: Listeners) -> Path:
    """Write ``mosquitto.conf``; returns its path."""
    files = BrokerFiles(home=home)
    try:
        files.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot make the folder: {error.strerror}", where=str(files.data)) from error
    atomic_write(files.configuration, mosquitto_conf(files, listeners).encode(), mode=0o600)
    return files.configuration


def _listener_lines(files: BrokerFiles, listeners: Listeners) -> list[str]:
    lines = [f"listener {listeners.port} {listeners.host}", "use_username_as_clientid true"]
    if listeners.inner_port is None:
        return lines
    return [
        *lines,
        f"cafile {files.tls.ca}",
        f"certfile {files.tls.server}",
        f"keyfile {files.tls.server_key}",
        "tls_version tlsv1.2",  # and newer
        f"listener {listeners.inner_port} {LOOPBACK}",
        "use_username_as_clientid true",
    ]


def mosquitto_conf(files: BrokerFiles, listeners: Listeners) -> str:
    """The text of ``mosquitto.conf``."""
    lines = [
        "# Written by edgekit at each start; change fleet.toml instead.",
        *_listener_lines(files, listeners),
        "allow_anonymous false",
        f"password_file {files.passwords}",
        f"acl_file {files.access}",
        "persistence true",
        f"persistence_location {files.data}{os.sep}",
        "autosave_interval 5",
        "max_inflight_messages 0",
        "max_queued_messages 1000000",
        f"max_packet_size {MAX_PACKET}",
        "set_tcp_nodelay true",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "log_type information",  # a reload is confirmed at this level
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # else it becomes another user and cannot read the home
    return "\n".join(lines) + "\n"


def chosen_port(path: Path, *, host: str, wanted: int) -> int:
    """A port of the broker: the configured one, else the one chosen at the first start and kept in
    `path`, else a free one."""
    if wanted:
        return wanted
    if path.exists():
        text = read_bytes(path, limit=16).decode("ascii", "replace").strip()
        if text.isdigit() and 0 < int(text) < 65_536:
            return int(text)
    try:
        port = _lasting_port(host)
    except OSError as error:
        raise BrokerError(
            f"the broker cannot listen there: {error.strerror}",
            where=f"fleet.toml: broker.host = {host}",
            remedy="an address of this machine is needed; 127.0.0.1 is the default",
            code="bad_host",
        ) from error
    atomic_write(path, f"{port}\n".encode())
    return port


def _lasting_port(host: str) -> int:
    """A free port that stays ours while the broker is down.

    A port of the system's ephemeral range would not: any outgoing connection may get it as its local
    end, even a device's own try to reach the broker, which TCP then connects to itself.
    """
    for port in random.sample(_LASTING_PORTS, 50):
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return port
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])
