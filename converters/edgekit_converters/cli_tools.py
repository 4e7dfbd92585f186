"""`edgekit tools`: foreign tools, found, installed and removed."""

from __future__ import annotations

import json

import click

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NAMES = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.group()
def tools() -> None:
    """Foreign tools of the targets: which are here, and environments of their own for some of them.

    Environments lie below EDGEKIT_TOOLS, else the user's cache folder. Nothing is installed unasked; a
    variant whose tool is absent is labelled prepared or emulated.
    """


@tools.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """List all foreign tools: where each was found, or how to get it."""
    from edgekit_converters.sidecars.tools import tools as all_tools

    found = all_tools()
    if as_json:
        click.echo(json.dumps([item.to_dict() for item in found], indent=2))
        return
    for item in found:
        state = f"{item.version or 'found'}  {item.place}" if item.place else f"absent  {item.get}"
        click.echo(f"{item.name:<9} {item.title}\n          {state}")


@tools.command()
@_NAMES
@_JSON
def install(names: tuple[str, ...], as_json: bool) -> None:
    """Install the tools NAME... (triton, vela, web) from locks with hashes, each in a folder of its own."""
    from edgekit_converters.sidecars.tools import sidecar_called

    wanted = [sidecar_called(name) for name in names]
    places = {item.name: str(item.install(lambda line: click.echo(line, err=True))) for item in wanted}
    _tell(places, as_json)


@tools.command()
@_NAMES
@_JSON
def remove(names: tuple[str, ...], as_json: bool) -> None:
    """Remove the environments of the tools NAME... from the disk."""
    from edgekit_converters.sidecars.tools import sidecar_called

    wanted = [sidecar_called(name) for name in names]
    _tell({item.name: "removed" if item.remove() else "was not installed" for item in wanted}, as_json)


def _tell(results: dict[str, str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(results))
        return
    for name, result in results.items():
        click.echo(f"{name}: {result}")
