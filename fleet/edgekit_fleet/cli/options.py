"""What the fleet's commands share: the home, the service's address, printing, dry runs.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit_fleet.context import Fleet
    from edgekit_fleet.home import Home
    from edgekit_fleet.remote import Backend

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_HOME = "~/.edgekit"

home_option = click.option(
    "--home",
    envvar="EDGEKIT_HOME",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_HOME,
    show_default=True,
    help="The fleet home (or EDGEKIT_HOME).",
)
url_option = click.option(
    "--url",
    envvar="EDGEKIT_URL",
    help="Address of a running service (or EDGEKIT_URL); without it the home is used directly.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check and show only; change nothing.")
keys_option = click.option(
    "--keys",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the signing keys, when they are kept outside the home.",
)


def open_home(path: Path) -> Home:
    """The home at `path`; it must be initialised."""
    from edgekit_fleet.home import Home

    return Home(path=path.expanduser().absolute()).require()


@contextlib.contextmanager
def local_fleet(path: Path, keys: Path | None = None) -> Iterator[Fleet]:
    """The fleet in the home at `path`, opened on this machine."""
    from edgekit_fleet.context import open_fleet

    fleet = open_fleet(open_home(path), keys=keys.expanduser() if keys else None)
    with contextlib.closing(fleet.database):
        yield fleet


@contextlib.contextmanager
def backend(path: Path, url: str | None) -> Iterator[Backend]:
    """The fleet's operations: through the service at `url`, or on the home itself."""
    if url:
        from edgekit_fleet.client import FleetClient
        from edgekit_fleet.remote import RemoteBackend

        with FleetClient(url, operator_token(path)) as client:
            yield RemoteBackend(client)
        return
    from edgekit_fleet.audit import local_actor
    from edgekit_fleet.backend import LocalBackend

    with local_fleet(path) as fleet:
        yield LocalBackend(fleet, actor=local_actor())


def operator_token(path: Path) -> str:
    """The operator token: ``EDGEKIT_TOKEN``, else the home's."""
    given = os.environ.get("EDGEKIT_TOKEN", "").strip()
    return given or open_home(path).operator_token()


def actor() -> str:
    """Who stands in the audit trail for what is done on this machine."""
    from edgekit_fleet.audit import local_actor

    return local_actor()


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, indent=2, sort_keys=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows under columns, or `empty`."""
    if not rows:
        click.echo(empty)
        return
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def add_list(
    group: click.Group,
    summary: str,
    *,
    read: Callable[[Backend], Mapping[str, Any]],
    member: str,
    columns: Sequence[str],
    row: Callable[[Mapping[str, Any]], Sequence[object]],
    empty: str,
) -> None:
    """Give a group its ``list``: `member` of what `read` answers as a table, or the whole answer as JSON."""

    @group.command(name="list", help=summary)
    @home_option
    @url_option
    @json_option
    def listed(home: Path, url: str | None, as_json: bool) -> None:
        with backend(home, url) as fleet:
            document = read(fleet)
        if as_json:
            print_json(document)
        else:
            print_table(columns, [row(item) for item in document[member]], empty=empty)


def moment(at: float | None) -> str:
    """Seconds since the epoch for people, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at is not None else "-"


def seconds_of(text: str, *, where: str) -> float:
    """Read a duration such as ``90s``, ``15m``, ``24h`` or ``7d``.

    Raises:
        UsageError: not of that form.
    """
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(text[-1:].lower())
    number = text[:-1] if factor else text
    try:
        value = float(number) * (factor or 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise UsageError(f"{text!r} is no duration", where=where, remedy="for example 90s, 15m, 24h or 7d")
    return value
