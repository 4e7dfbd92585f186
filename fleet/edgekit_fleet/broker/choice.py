"""Which broker serves a fleet: Mosquitto when it is found, else the fallback, or somebody else's."""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgekit_fleet.broker.child import Launch
from edgekit_fleet.broker.credentials import service_password, service_user
from edgekit_fleet.broker.files import (
    BrokerFiles,
    Listeners,
    listeners_of,
    write_certificates,
    write_configuration,
    write_users,
)
from edgekit_fleet.errors import BrokerError
from edgekit_fleet.home import Home, Settings

MOSQUITTO, FALLBACK, EXTERNAL = "mosquitto", "fallback", "external"
FALLBACK_LIMIT = 500
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The broker of this run; `launch` is None for an external one. `host` and `port` are the service's,
    `device_host` and `device_port` the devices', who check its identity with `ca` (PEM), if any."""

    kind: str
    host: str
    port: int
    device_host: str
    device_port: int
    username: str
    password: str
    ca: str = ""
    launch: Launch | None = None


def find_mosquitto(folder: str = "") -> Path | None:
    """The mosquitto program: below `folder` when given, else on the PATH and the usual sbin folders."""
    if folder:
        base = Path(folder).expanduser()
        places = [str(base / part) for part in ("", "sbin", "bin", "usr/sbin", "usr/bin")]
    else:
        places = [os.environ.get("PATH", os.defpath), *_SBIN]
    found = shutil.which("mosquitto", path=os.pathsep.join(places))
    return Path(found) if found else None


def choose_broker(home: Home, settings: Settings, wanted: str, devices: Mapping[str, str]) -> Chosen:
    """Pick the broker and write its files.

    Args:
        home: the fleet home.
        settings: its settings.
        wanted: ``auto``, ``mosquitto``, ``fallback`` or ``mqtt://user:password@host:port``.
        devices: device id → password hash.

    Raises:
        BrokerError: mosquitto is demanded and not found, the fallback would leave loopback, or the URL
            is none.
    """
    write_users(home, settings, devices)
    if "://" in wanted:
        return _external(home, settings, wanted)
    program = find_mosquitto(settings.broker.folder) if wanted != FALLBACK else None
    if wanted == MOSQUITTO and program is None:
        raise BrokerError(
            "mosquitto is not found",
            where=settings.broker.folder or "PATH",
            remedy="install it (apt-get install mosquitto), name its folder as broker.folder in fleet.toml, "
            "or use --broker fallback",
            code="no_mosquitto",
        )
    host = settings.broker.host
    if program is None and not _is_loopback(host):
        raise BrokerError(
            "the fallback broker listens on loopback only",
            where=f"fleet.toml: broker.host = {host}",
            remedy="install mosquitto (apt-get install mosquitto)",
            code="fallback_loopback",
        )
    if program is None and settings.broker.tls:
        raise BrokerError(
            "the fallback broker does not speak TLS",
            where="fleet.toml: broker.tls = true",
            remedy="install mosquitto (apt-get install mosquitto)",
            code="fallback_tls",
        )
    listeners = listeners_of(home, settings)
    launch = (
        _mosquitto(home, program, listeners, settings) if program else _fallback(home, host, listeners.port)
    )
    return Chosen(
        kind=launch.kind,
        host=launch.host,
        port=launch.port,
        device_host=host,
        device_port=listeners.port,
        ca=BrokerFiles(home=home).tls.ca.read_text(encoding="ascii") if settings.broker.tls else "",
        username=service_user(settings.tenant),
        password=service_password(home, settings.tenant),
        launch=launch,
    )


def _mosquitto(home: Home, program: Path, listeners: Listeners, settings: Settings) -> Launch:
    if settings.broker.tls:
        write_certificates(home, settings)
    configuration = write_configuration(home, listeners)
    host, port = listeners.service
    return Launch(
        kind=MOSQUITTO,
        command=(str(program), "-c", str(configuration)),
        host=host,
        port=port,
        pid_file=BrokerFiles(home=home).pid,
        environment=_libraries(settings.broker.folder),
    )


def _libraries(folder: str) -> Mapping[str, str]:
    """Where a mosquitto that was unpacked without root finds its libraries."""
    if not folder:
        return {}
    base = Path(folder).expanduser().absolute()
    patterns = ("lib", "lib/*-linux-gnu*", "usr/lib", "usr/lib/*-linux-gnu*")
    found = [str(path) for pattern in patterns for path in sorted(base.glob(pattern)) if path.is_dir()]
    known = os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": os.pathsep.join([*found, *filter(None, [known])])} if found else {}


def _fallback(home: Home, host: str, port: int) -> Launch:
    files = BrokerFiles(home=home)
    files.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = (
        *(sys.executable, "-m", "edgekit_fleet.broker.fallback", "--host", host, "--port", str(port)),
        *("--passwords", str(files.passwords), "--acl", str(files.access)),
        *("--state", str(files.data / "retained.json")),
    )
    return Launch(kind=FALLBACK, command=command, host=host, port=port, pid_file=files.pid)


def _external(home: Home, settings: Settings, url: str) -> Chosen:
    parts = urlsplit(url)
    try:
        port = parts.port or 1883
    except ValueError as error:
        raise BrokerError(f"the port is none: {error}", where=url) from error
    if parts.scheme != "mqtt" or not parts.hostname:
        raise BrokerError("mqtt://[USER:PASSWORD@]HOST[:PORT] was expected", where=url, code="bad_url")
    return Chosen(
        kind=EXTERNAL,
        host=parts.hostname,
        port=port,
        device_host=parts.hostname,
        device_port=port,
        username=parts.username or service_user(settings.tenant),
        password=parts.password or service_password(home, settings.tenant),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
