"""`edgekit verify`, `edgekit diff` and `edgekit export`: what is done with a finished package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("package", type=_PATH)
@click.option("--source", type=_PATH, help="The model: convert it anew and compare bytes and verdicts.")
@click.option("--contract", type=_PATH, help="With --source: model.toml.")
@click.option("--calibration", type=_PATH, help="With --source: the calibration data given then.")
@click.option("--validation", type=_PATH, help="With --source: the validation data given then.")
@click.option("--finetune", metavar="FILE.PY:FUNCTION", help="With --source: the function given then.")
@click.option("--trust", is_flag=True, help="With --source: load a pickle, which runs code in it.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.pass_context
def verify(context: click.Context, /, package: Path, as_json: bool, **options: Any) -> None:
    """Check PACKAGE again: files, digests, profiles, and the probes of every variant that runs here.

    Exit code 0: nothing failed; 3: something did.
    """
    from edgekit_converters.review.verify import Again, verify_package

    source = options.pop("source")
    again = Again(source=source, **options) if source is not None else None
    review = verify_package(package, again)
    if as_json:
        click.echo(json.dumps(review.to_dict(), indent=2))
    else:
        for item in review.checks:
            if item.check != "file" or item.result != "ok":
                click.echo(f"{item.result:8} {item.check:8} {item.subject}  {item.detail}".rstrip())
        files = sum(item.check == "file" and item.result == "ok" for item in review.checks)
        click.echo(f"{review.package}: {files} files as named, {'good' if review.good else 'NOT GOOD'}")
    context.exit(0 if review.good else 3)


@click.command()
@click.argument("before", type=_PATH)
@click.argument("after", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Show what differs between the packages BEFORE and AFTER: source, contract, variants, figures, tools."""
    from edgekit.package import load_package
    from edgekit_converters.review.diff import differences, to_dict
    from edgekit_converters.review.verify import require_package

    for path in (before, after):
        require_package(path)
    old, new = (load_package(path, check_files=False) for path in (before, after))
    if as_json:
        click.echo(json.dumps(to_dict(old, new), indent=2))
        return
    for item in differences(old, new):
        click.echo(f"{item.what}: {_shown(item.before)} → {_shown(item.after)}")
    if old.digest == new.digest:
        click.echo(f"the same package: {old.ref} {old.digest}")


@click.command()
@click.argument("package", type=_PATH)
@click.option("--platform", required=True, metavar="NAME", help="ios, android or c99.")
@click.option("--variant", metavar="ID", help="Default: the smallest proven one that the platform takes.")
@click.option("--out", type=_PATH, required=True, help="Folder to write.")
def export(package: Path, platform: str, variant: str | None, out: Path) -> None:
    """Hand a variant of PACKAGE over to an app or a firmware: artifact, constants, sources, test vectors."""
    from edgekit_converters.handover.export import PLATFORMS, export_variant
    from edgekit_converters.review.verify import require_package

    require_package(package)
    chosen = export_variant(package, platform, out, variant)
    click.echo(f"{chosen.id} written to {out}; {PLATFORMS[platform].state}")


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
