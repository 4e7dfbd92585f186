"""What `edgekit fleet broker` does: show configuration and passwords, or run the broker alone."""

from __future__ import annotations

import signal
import threading

import click

from edgekit_fleet.broker.child import BrokerChild
from edgekit_fleet.broker.choice import choose_broker
from edgekit_fleet.broker.credentials import producer_password
from edgekit_fleet.broker.files import (
    BrokerFiles,
    listeners_of,
    mosquitto_conf,
    write_certificates,
    write_users,
)
from edgekit_fleet.context import open_fleet
from edgekit_fleet.enrolment import password_hashes
from edgekit_fleet.errors import HomeError, UnknownNameError
from edgekit_fleet.home import Home


def print_configuration(home: Home) -> None:
    """Print mosquitto.conf and the ACL, for a broker that somebody else runs."""
    settings = home.settings()
    fleet = open_fleet(home)
    write_users(home, settings, password_hashes(fleet))
    fleet.database.close()
    files = BrokerFiles(home=home)
    if settings.broker.tls:
        write_certificates(home, settings)
    click.echo(mosquitto_conf(files, listeners_of(home, settings)), nl=False)
    click.echo(f"\n# {files.access}")
    click.echo(files.access.read_text(), nl=False)


def print_ca(home: Home) -> None:
    """Print the certificate by which agents check the broker's identity, making it if need be.

    Raises:
        HomeError: TLS is off.
    """
    settings = home.settings()
    if not settings.broker.tls:
        raise HomeError(
            "the broker speaks no TLS", where="fleet.toml: broker.tls", remedy="set it to true", code="no_tls"
        )
    click.echo(write_certificates(home, settings).ca.read_text(encoding="ascii"), nl=False)


def print_password(home: Home, user: str) -> None:
    """Print the password of a stream producer named in fleet.toml.

    Raises:
        UnknownNameError: it is not named there.
    """
    producers = home.settings().broker.producers
    if user not in producers:
        raise UnknownNameError.of("producer", user, producers)
    click.echo(producer_password(home, user))


def run_broker(home: Home, kind: str) -> None:
    """Run the broker alone until SIGTERM or SIGINT."""
    fleet = open_fleet(home)
    chosen = choose_broker(home, fleet.settings, kind, password_hashes(fleet))
    fleet.database.close()
    assert chosen.launch is not None
    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    child = BrokerChild(chosen.launch)
    child.start()
    try:
        tls = " (TLS)" if chosen.ca else ""
        click.echo(f"{chosen.kind} on {chosen.device_host}:{chosen.device_port}{tls}")
        ended.wait()
    finally:
        child.stop()
