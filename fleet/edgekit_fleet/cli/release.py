"""`edgekit release`: add, sign, list, show, verify and invalidate releases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgekit_fleet.cli.options import (
    actor,
    add_list,
    dry_run_option,
    home_option,
    json_option,
    keys_option,
    local_fleet,
    moment,
    open_home,
    print_json,
)


@click.group()
def release() -> None:
    """Add, sign, list, show, verify and invalidate releases."""


@release.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@home_option
@dry_run_option
@json_option
def add(folder: Path, home: Path, dry_run: bool, as_json: bool) -> None:
    """Take the package in FOLDER into the fleet, every byte checked; not yet signed.

    Its measurements and report are kept beside the release (see `release show`).
    """
    from edgekit_fleet.releases import add_release

    with local_fleet(home) as fleet:
        document = add_release(fleet, folder, actor=actor(), dry_run=dry_run)
    _report(document, "added" if document["added"] else "was there already", dry_run, as_json)
    if not as_json and document["state"] == "added":
        click.echo(f"Next: edgekit release sign {document['release']}")


@release.command()
@click.argument("ref", metavar="NAME@VERSION")
@home_option
@keys_option
@dry_run_option
@json_option
def sign(ref: str, home: Path, keys: Path | None, dry_run: bool, as_json: bool) -> None:
    """Sign and publish a release, after reading every stored byte again."""
    from edgekit_fleet.releases import sign_release

    with local_fleet(home, keys) as fleet:
        document = sign_release(fleet, ref, actor=actor(), dry_run=dry_run)
    _report(document, "signed" if document["signed_now"] else "was signed already", dry_run, as_json)


def _row(item: Mapping[str, Any]) -> list[object]:
    return [
        item["release"],
        item["revision"],
        item["state"] + (f" ({item['reason']})" if item["reason"] else ""),
        len(item["variants"]),
        item["bytes"],
        item["digest"][:19],
        moment(item["signed_at"]),
    ]


add_list(
    release,
    "List all releases and their state.",
    read=lambda fleet: fleet.releases(),
    member="releases",
    columns=["RELEASE", "REV", "STATE", "VARIANTS", "BYTES", "DIGEST", "SIGNED"],
    row=_row,
    empty="No releases yet: edgekit release add FOLDER",
)


@release.command()
@click.argument("ref", metavar="NAME@VERSION")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Copy its measurements and report into this new folder."
)
@home_option
@json_option
def show(ref: str, out: Path | None, home: Path, as_json: bool) -> None:
    """Show one release: its variants, and the measurements and report that came with it."""
    from edgekit_fleet.releases import show_release

    with local_fleet(home) as fleet:
        document = show_release(fleet, ref, out=out)
    _report(document, document["state"], False, as_json)
    if not as_json:
        click.echo(f"  papers: {', '.join(document['papers']) or 'none came with it'}")


@release.command()
@click.argument("what", metavar="FOLDER|NAME@VERSION")
@home_option
@json_option
def verify(what: str, home: Path, as_json: bool) -> None:
    """Check a package folder, or a release from the root's signature down to every stored byte."""
    from edgekit_fleet.releases import verify_folder, verify_release

    folder = Path(what)
    if "@" in what and not folder.is_dir():
        with local_fleet(home) as fleet:
            document = verify_release(fleet, what)
    else:
        document = _verify_folder(folder, home, verify_folder)
    if as_json:
        print_json(document)
        return
    state = "signed" if document["signed"] else "not signed here"
    click.echo(
        f"{document['release']}  {document['digest'][:19]}…  {document['files']} files intact, {state}"
    )


@release.command()
@click.argument("ref", metavar="NAME@VERSION")
@click.option("--reason", required=True, help="Why; shown wherever the release is named.")
@home_option
@keys_option
@dry_run_option
@json_option
def invalidate(ref: str, reason: str, home: Path, keys: Path | None, dry_run: bool, as_json: bool) -> None:
    """Withdraw a release for ever: no device installs it again; those that serve it go on serving."""
    from edgekit_fleet.releases import invalidate_release

    with local_fleet(home, keys) as fleet:
        document = invalidate_release(fleet, ref, reason=reason, actor=actor(), dry_run=dry_run)
    word = "invalidated" if document["invalidated_now"] else f"was invalidated already ({document['reason']})"
    _report(document, word, dry_run, as_json)


def _verify_folder(folder: Path, home: Path, check: Any) -> dict[str, Any]:
    """With a fleet when there is one; a package can be checked without."""
    from edgekit_fleet.home import Home

    document: dict[str, Any]
    if Home(path=home.expanduser()).initialised:
        open_home(home)
        with local_fleet(home) as fleet:
            document = check(fleet, folder)
    else:
        document = check(None, folder)
    return document


def _report(document: dict[str, Any], word: str, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({**document, "dry_run": dry_run})
        return
    prefix = "Dry run: " if dry_run else ""
    click.echo(
        f"{prefix}{document['release']} revision {document['revision']} {word}  {document['digest'][:19]}…"
    )
    for item in document["variants"]:
        click.echo(
            f"  {item['id']}  {item['profile']}  {item['precision']}  {item['size']} B  {item['verdict']}"
        )
