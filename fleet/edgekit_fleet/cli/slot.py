"""`edgekit slot`: create slots and keep their ground-truth probes."""

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
    keys_option,
    local_fleet,
    moment,
    print_json,
    url_option,
)


@click.group()
def slot() -> None:
    """Create slots and keep their ground-truth probes."""


@slot.command()
@click.argument("name")
@click.option(
    "--contract",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the slot takes and gives: a model.toml.",
)
@home_option
@url_option
@dry_run_option
@json_option
def create(name: str, contract: Path, home: Path, url: str | None, dry_run: bool, as_json: bool) -> None:
    """Create the slot NAME."""
    from edgekit.contract import load_contract
    from edgekit_fleet.slots import create_slot

    wanted = load_contract(contract)
    if dry_run:
        with local_fleet(home) as fleet:
            document = create_slot(fleet, name, wanted, actor=actor(), dry_run=True)
    else:
        with backend(home, url) as operations:
            document = operations.create_slot(name, wanted)
    if as_json:
        print_json({**document, "dry_run": dry_run})
        return
    word = "created" if document["created_now"] else "was there already"
    click.echo(f"{'Dry run: ' if dry_run else ''}slot {name} {word}")


@slot.group()
def probes() -> None:
    """Ground-truth probes: labelled inputs that devices run before they switch."""


@probes.command(name="add")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--min-accuracy", required=True, type=float, help="Share a device must get right, (0, 1].")
@click.option(
    "--policy",
    type=click.Choice(["enforce", "observe"]),
    default="enforce",
    show_default=True,
    help="enforce: a miss reverts before serving; observe: the gate alone hears of it.",
)
@home_option
@keys_option
@dry_run_option
@json_option
def add_probes(
    name: str,
    file: Path,
    min_accuracy: float,
    policy: str,
    home: Path,
    keys: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Check, sign and publish FILE (npz: one array per input, and labels) for the slot NAME."""
    from edgekit.documents import ProbePolicy
    from edgekit_fleet.slots import add_probes as add

    with local_fleet(home, keys) as fleet:
        document = add(
            fleet,
            name,
            file,
            min_accuracy=min_accuracy,
            policy=ProbePolicy(policy),
            actor=actor(),
            dry_run=dry_run,
        )
    if as_json:
        print_json({**document, "dry_run": dry_run})
        return
    click.echo(
        f"{'Dry run: ' if dry_run else ''}{document['target']}: {document['items']} items, "
        f"at least {document['min_accuracy']:.1%} right, {document['policy']}"
    )


def _row(item: Mapping[str, Any]) -> list[object]:
    newest = item["probes"][-1] if item["probes"] else None
    told = f"{newest['items']} × ≥ {newest['min_accuracy']:.1%} {newest['policy']}" if newest else "-"
    return [item["slot"], told, moment(item["created_at"])]


add_list(
    slot,
    "List all slots.",
    read=lambda fleet: fleet.slots(),
    member="slots",
    columns=["SLOT", "PROBES", "CREATED"],
    row=_row,
    empty="No slots yet: edgekit slot create NAME",
)


@slot.command()
@click.argument("name")
@home_option
@url_option
@json_option
def show(name: str, home: Path, url: str | None, as_json: bool) -> None:
    """Show the slot NAME with its contract and probe sets."""
    with backend(home, url) as fleet:
        document = fleet.slot(name)
    if as_json:
        print_json(document)
        return
    click.echo(f"slot {document['slot']}, created {moment(document['created_at'])}")
    for kind in ("inputs", "outputs"):
        for item in document["contract"].get(kind, ()):
            task = item.get("task") or item.get("meaning") or ""
            click.echo(f"  {kind[:-1]} {item['name']}  {item['dtype']}  {item.get('shape', '')}  {task}")
    for item in document["probes"]:
        click.echo(
            f"  probes {item['n']}: {item['items']} items, ≥ {item['min_accuracy']:.1%}, {item['policy']}, "
            f"{item['sha256'][:12]}…"
        )
