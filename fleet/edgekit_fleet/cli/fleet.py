"""`edgekit fleet`: run the fleet service and its broker."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit_fleet.cli.options import (
    backend,
    dry_run_option,
    home_option,
    json_option,
    moment,
    open_home,
    print_json,
    print_table,
    url_option,
)


@click.group()
def fleet() -> None:
    """Run the fleet service and its broker."""


@fleet.command()
@home_option
@click.option("--tenant", default="default", show_default=True, help="First level of all topics.")
@click.option("--no-keys", is_flag=True, help="Make no signing keys (edgekit key init does).")
@dry_run_option
@json_option
def init(home: Path, tenant: str, no_keys: bool, dry_run: bool, as_json: bool) -> None:
    """Make a fleet home: settings, database, operator token, signing keys."""
    from edgekit_fleet.home import Home
    from edgekit_fleet.setup import init_home, init_keys

    path = home.expanduser().absolute()
    keys = not no_keys and not (Home(path=path).metadata / "timestamp.json").is_file()
    if not dry_run:
        init_home(path, tenant=tenant)
        if keys:
            init_keys(path, tenant=tenant)
    document = {"home": str(path), "tenant": tenant, "keys_made": keys, "dry_run": dry_run}
    if as_json:
        print_json(document)
        return
    click.echo(f"{'Dry run: ' if dry_run else ''}fleet home {path}" + (" with new keys" if keys else ""))
    click.echo("Keep root.pem and targets.pem offline when you go beyond trying it out (edgekit key status).")
    click.echo(f"Next: edgekit fleet serve --home {path}")


@fleet.command()
@home_option
@click.option("--host", default="127.0.0.1", show_default=True, help="HTTP address.")
@click.option("--port", default=8420, show_default=True, help="HTTP port; 0 for a free one.")
@click.option("--broker", help="auto, mosquitto, fallback, or mqtt://USER:PASSWORD@HOST:PORT.")
@click.option("--verbose", "-v", is_flag=True, help="Log more.")
def serve(home: Path, host: str, port: int, broker: str | None, verbose: bool) -> None:
    """Run the service: broker, MQTT, HTTP and the live page, until Ctrl-C."""
    import logging

    from edgekit.errors import UsageError
    from edgekit_fleet.home import BROKERS

    if broker is not None and broker not in BROKERS and "://" not in broker:
        raise UsageError(
            f"{broker!r} is no broker", where="--broker", remedy=f"one of {', '.join(BROKERS)} or mqtt://…"
        )
    fleet_home = open_home(home)
    from edgekit_fleet.service.server import Serving  # slow to import: not before the call is checked
    from edgekit_fleet.service.server import serve as run

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name in ("httpx", "alembic", "sse_starlette"):
        logging.getLogger(name).setLevel(logging.WARNING)

    def ready(serving: Serving) -> None:
        click.echo(f"fleet service  {serving.url}")
        click.echo(f"MQTT broker    {serving.broker} on {serving.mqtt_host}:{serving.mqtt_port}")

    run(fleet_home, host=host, port=port, broker=broker, ready=ready)


@fleet.command()
@home_option
@click.option("--print-config", is_flag=True, help="Print mosquitto.conf and the ACL, start nothing.")
@click.option("--print-ca", is_flag=True, help="Print the CA of a broker with TLS, for agents' [mqtt] ca.")
@click.option("--password", "user", metavar="USER", help="Print the password of a configured producer.")
@click.option(
    "--broker",
    "kind",
    type=click.Choice(["auto", "mosquitto", "fallback"]),
    default="auto",
    help="Which broker; auto takes Mosquitto where it is installed.",
)
def broker(home: Path, print_config: bool, print_ca: bool, user: str | None, kind: str) -> None:
    """Write the broker's configuration, credentials and ACL; run the broker alone until Ctrl-C."""
    from edgekit_fleet.cli import broker as commands

    if user is not None:
        commands.print_password(open_home(home), user)
    elif print_ca:
        commands.print_ca(open_home(home))
    elif print_config:
        commands.print_configuration(open_home(home))
    else:
        commands.run_broker(open_home(home), kind)


@fleet.command()
@home_option
@url_option
@json_option
def status(home: Path, url: str | None, as_json: bool) -> None:
    """Show the fleet in figures, and whether the service runs."""
    from edgekit_fleet.home import Home

    running = Home(path=home.expanduser()).running_service()
    address = url or (str(running["url"]) if running else None)
    with backend(home, address) as operations:
        document = {**operations.status(), "url": address, "running": address is not None}
    if as_json:
        print_json(document)
        return
    click.echo(f"tenant {document['tenant']}, service {address or 'not running'}")
    if address:
        linked = "connected" if document["connected"] else "NOT connected"
        click.echo(
            f"broker {document['broker']} on {document['mqtt_host']}:{document['mqtt_port']}, {linked}"
        )
    counts = document["devices"]
    click.echo(f"devices {', '.join(f'{n} {s}' for s, n in sorted(counts.items())) or 'none'}")


@fleet.command()
@home_option
@url_option
@click.option("--limit", default=30, show_default=True, help="How many acts.")
@json_option
def audit(home: Path, url: str | None, limit: int, as_json: bool) -> None:
    """Check the audit trail's chain and its signed head, and show the newest acts."""
    with backend(home, url) as operations:
        document = operations.audit(limit)
    if as_json:
        print_json(document)
        return
    print_table(
        ["WHEN", "WHO", "WHAT", "ON", "HASH"],
        [
            [moment(item["at"]), item["actor"], item["verb"], item["subject"], item["hash"][:12]]
            for item in document["acts"]
        ],
        empty="Nothing has happened yet.",
    )
    head = document["head"]
    signed = f"; head {head['id']} {head['hash']}" if head else "; no head is signed yet"
    click.echo(f"{document['count']} acts, chain intact{signed}")
