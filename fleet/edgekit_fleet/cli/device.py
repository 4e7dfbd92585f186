"""`edgekit device`: enrol, list, show and pin devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgekit_fleet.cli.options import (
    actor,
    add_list,
    backend,
    dry_run_option,
    home_option,
    json_option,
    local_fleet,
    moment,
    print_json,
    seconds_of,
    url_option,
)


@click.group()
def device() -> None:
    """Enrol, list, show and pin devices."""


@device.command()
@click.option("--name", default="", help="Id the device gets; without it the device names itself.")
@click.option("--ttl", default="24h", show_default=True, help="How long it is good, such as 15m or 7d.")
@home_option
@url_option
@dry_run_option
@json_option
def token(name: str, ttl: str, home: Path, url: str | None, dry_run: bool, as_json: bool) -> None:
    """Make a one-time enrolment token; it is shown once."""
    seconds = seconds_of(ttl, where="--ttl")
    if dry_run:
        from edgekit_fleet.enrolment import make_token

        with local_fleet(home) as fleet:
            document = make_token(fleet, name=name, ttl=seconds, actor=actor(), dry_run=True)
    else:
        with backend(home, url) as operations:
            document = operations.token(name, seconds)
    if as_json:
        print_json({**document, "dry_run": dry_run})
        return
    if dry_run:
        click.echo("Dry run: a token would be made")
        return
    click.echo(document["token"])
    click.echo(f"good once, until {moment(document['expires_at'])}; on the device:", err=True)
    click.echo("  edgekit-agent enrol --url URL --token TOKEN", err=True)


def _row(item: Mapping[str, Any]) -> list[object]:
    reported = item["reported"] or {}
    slots = reported.get("slots", {})
    runs = ", ".join(f"{slot}={state['release']}" for slot, state in sorted(slots.items()))
    pins = ", ".join(f"{slot}={ref}" for slot, ref in sorted(item["pins"].items()))
    return [
        item["id"],
        item["hardware"],
        item["state"],
        runs or "-",
        reported.get("step", "-"),
        pins or "-",
        moment(item["last_seen"]),
    ]


add_list(
    device,
    "List all devices.",
    read=lambda fleet: fleet.devices(),
    member="devices",
    columns=["DEVICE", "HARDWARE", "STATE", "RUNS", "STEP", "PINNED", "LAST SEEN"],
    row=_row,
    empty="No devices yet: edgekit device token",
)


@device.command()
@click.argument("name", metavar="DEVICE")
@home_option
@url_option
@json_option
def show(name: str, home: Path, url: str | None, as_json: bool) -> None:
    """Show one device: what it is, what it runs, what it last said."""
    with backend(home, url) as fleet:
        document = fleet.device(name)
    if as_json:
        print_json(document)
        return
    facts, reported = document["facts"], document["reported"] or {}
    click.echo(f"{document['id']}  {document['hardware']}  {document['state']}")
    click.echo(f"  {facts['machine']}, {facts['os']}, Python {facts['python']}, agent {facts['agent']}")
    runtimes = ", ".join(f"{key} {value}" for key, value in sorted(facts.get("runtimes", {}).items()))
    click.echo(f"  runtimes {runtimes or 'none'}; profiles {', '.join(facts.get('profiles', ())) or 'none'}")
    click.echo(f"  enrolled {moment(document['enrolled'])}, last seen {moment(document['last_seen'])}")
    for slot, state in sorted(reported.get("slots", {}).items()):
        click.echo(f"  slot {slot}: {state['release']} {state['variant']} {state['digest'][:19]}…")
    if reason := reported.get("reason"):
        click.echo(f"  {reported['step']}: {reason['code']}: {reason['text']}")
    for slot, release in sorted(document["pins"].items()):
        click.echo(f"  slot {slot} is pinned to {release}")


@device.command()
@click.argument("name", metavar="DEVICE")
@click.argument("release", metavar="[NAME@VERSION]", required=False)
@click.option("--slot", required=True, help="Which slot.")
@click.option("--clear", is_flag=True, help="Take the pin away.")
@home_option
@url_option
@dry_run_option
@json_option
def pin(
    name: str,
    release: str | None,
    slot: str,
    clear: bool,
    home: Path,
    url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Keep a slot of DEVICE at NAME@VERSION: rollouts leave it alone until the pin is cleared."""
    if clear == (release is not None):
        raise click.UsageError("give either NAME@VERSION or --clear")
    with backend(home, url) as fleet:
        if dry_run:
            document = fleet.device(name)
            fleet.slot(slot)
            if release:
                fleet.release(release)
        else:
            document = fleet.pin(name, slot, release)
    if as_json:
        print_json({**document, "dry_run": dry_run})
        return
    what = f"pinned to {release}" if release else "no longer pinned"
    click.echo(f"{'Dry run: ' if dry_run else ''}{name}: slot {slot} {what}")
