"""`edgekit key`: make, rotate and inspect the signing keys of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit_fleet.cli.options import (
    dry_run_option,
    home_option,
    json_option,
    keys_option,
    local_fleet,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from edgekit_fleet.context import Fleet


@click.group()
def key() -> None:
    """Make, rotate and inspect the signing keys of a fleet."""


@key.command()
@home_option
@click.option(
    "--root-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the root key, for example on a medium that goes into a safe.",
)
@click.option("--tenant", default="default", show_default=True, help="Tenant, when the home is new.")
@dry_run_option
@json_option
def init(home: Path, root_dir: Path | None, tenant: str, dry_run: bool, as_json: bool) -> None:
    """Make root, targets, snapshot, timestamp and director keys, and sign the first metadata."""
    from edgekit_fleet.setup import init_keys

    document = init_keys(home.expanduser(), root_folder=root_dir, tenant=tenant, dry_run=dry_run)
    if as_json:
        print_json(document)
        return
    word = "would be made" if dry_run else "made"
    print_table(
        ["ROLE", "KEY ID", "FILE"],
        [[item["role"], (item["keyid"] or "-")[:16], item["path"]] for item in document["keys"]],
        empty="",
    )
    click.echo(f"Keys {word}. Move root and targets keys to a place that is offline, and back them up:")
    for item in document["keys"]:
        if item["offline"]:
            click.echo(f"  {item['path']}")
    click.echo("The service needs snapshot, timestamp, director; signing a release needs targets (--keys).")


@key.command()
@click.argument("role", type=click.Choice(["root", "targets", "snapshot", "timestamp", "director"]))
@home_option
@keys_option
@click.option(
    "--root-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the root key, when it is kept apart.",
)
@dry_run_option
@json_option
def rotate(
    role: str, home: Path, keys: Path | None, root_dir: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Give ROLE a new key: devices follow by themselves, the old key signs nothing any more.

    Needs the root key (for the director the targets key instead). A rotation that was cut off is
    completed by running it again. The service may run meanwhile.
    """
    from edgekit_fleet.setup import rotate_key

    with local_fleet(home, keys) as fleet:
        root_folder = root_dir.expanduser() if root_dir else None
        document = rotate_key(fleet, role, root_folder=root_folder, dry_run=dry_run)
    if as_json:
        print_json({**document, "dry_run": dry_run})
        return
    old = ", ".join(keyid[:16] for keyid in document["before"])
    if dry_run:
        click.echo(f"Dry run: the {role} key {old} would be replaced")
        return
    click.echo(f"{role}: {old} → {document['keyid'][:16]} in {document['path']}")
    if document["retired"]:
        click.echo(f"The old key lies in {document['retired']}; it is trusted no more and can be destroyed.")


@key.command()
@home_option
@keys_option
@json_option
def status(home: Path, keys: Path | None, as_json: bool) -> None:
    """Show which keys are here, what they sign and when the metadata expires."""
    with local_fleet(home, keys) as fleet:
        document = _status(fleet, keys.expanduser() if keys else fleet.home.keys)
    if as_json:
        print_json(document)
        return
    print_table(
        ["ROLE", "KEY ID", "PRIVATE KEY", "VERSION", "EXPIRES"],
        [
            [
                item["role"],
                (item["keyid"] or "-")[:16],
                item["problem"] or "here",
                item["version"] or "-",
                item["expires"] or "-",
            ]
            for item in document["roles"]
        ],
        empty="",
    )


def _status(fleet: Fleet, folder: Path) -> dict[str, Any]:
    from edgekit_fleet.trust.keys import inspect_keys

    published = {item.role: item for item in fleet.repository.status()}
    roles = []
    for found in inspect_keys(folder):
        metadata = published.get(found.role)
        trusted = fleet.repository.keyids(found.role)
        expected = found.keyid if found.keyid in trusted else next(iter(trusted), None)
        problem = found.problem
        if problem is None and len(trusted) > 1:
            problem = f"its rotation was cut off: run edgekit key rotate {found.role} again"
        if problem is None and found.keyid != expected:
            problem = "another key than the metadata names"
        roles.append(
            {
                "role": found.role,
                "keyid": expected,
                "path": str(found.path),
                "problem": problem,
                "version": metadata.version if metadata else None,
                "expires": metadata.expires.strftime("%Y-%m-%dT%H:%M:%SZ") if metadata else None,
            }
        )
    return {"home": str(fleet.home.path), "roles": roles}
