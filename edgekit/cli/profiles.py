"""`edgekit profiles`: list, show, check and write hardware profiles.

What a profile is and says stands in `edgekit.profile`; here it is printed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgekit.errors import StorageError, UsageError

_F = TypeVar("_F", bound=Callable[..., Any])
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def add_folder(folder: Path) -> None:
    """Search `folder` for profiles too, in this process and in those it starts."""
    from edgekit.profile import FOLDERS

    before = os.environ.get(FOLDERS)
    os.environ[FOLDERS] = os.pathsep.join(filter(None, (str(folder.absolute()), before)))


def _given(context: click.Context, parameter: click.Parameter, folder: Path | None) -> None:
    if folder is not None and not context.resilient_parsing:
        add_folder(folder)


def profiles_dir(command: _F) -> _F:
    """The option ``--profiles-dir``, for a command that takes profiles by name."""
    return click.option(
        "--profiles-dir",
        type=click.Path(file_okay=False, path_type=Path),
        expose_value=False,
        is_eager=True,
        callback=_given,
        help="Folder of own hardware profiles, searched before EDGEKIT_PROFILES and the shipped ones.",
    )(command)


@click.group()
@profiles_dir
def profiles() -> None:
    """Hardware profiles: one board, one TOML file of facts, each with its source.

    Own ones are read from the folders of EDGEKIT_PROFILES (a path list) and of --profiles-dir.
    """


@profiles.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """List all profiles: board, processor, memory, targets."""
    from edgekit.profile import list_profiles, load_profile, profile_file

    found = [(load_profile(name), profile_file(name)) for name in list_profiles()]
    if as_json:
        _print_json([_row(profile, path) for profile, path in found])
        return
    width = max(len(profile.name) for profile, _ in found)
    for profile, _ in found:
        targets = ", ".join(target.name for target in profile.targets)
        click.echo(f"{profile.name:<{width}}  {profile.title}; {_memory(profile)}; {targets}")


def _row(profile: Any, path: Path) -> dict[str, Any]:
    targets = {target.name: list(target.precisions) for target in profile.targets}
    bases = sorted({item.basis for item in profile.evidence})
    return {
        "name": profile.name,
        "aliases": profile.aliases,
        "title": profile.title,
        "memory_mb": profile.memory_mb,
        "targets": targets,
        "evidence": bases,
        "digest": profile.digest,
        "file": str(path),
    }


def _memory(profile: Any) -> str:
    if profile.budgets.arena_kb:
        return f"{profile.budgets.arena_kb} KiB for a model"
    return f"{', '.join(str(size) for size in profile.memory_mb)} MiB"


@profiles.command()
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Print the whole of profile NAME (or of a .toml file), with its rules and the source of each figure."""
    from edgekit.profile import load_profile, profile_file
    from edgekit.profile_text import as_file, profile_toml
    from edgekit.rules import load_rules

    profile = load_profile(name)
    rules = {target.rules: load_rules(target.rules) for target in profile.targets}
    path = profile_file(name)
    if as_json:
        whole = {key: item.to_dict() for key, item in rules.items()}
        _print_json({**profile.to_dict(), "file": str(path), "rules": whole})
        return
    header = [str(path), f"digest {profile.digest}"]
    header += [f"rules {key} {item.digest}" for key, item in rules.items()]
    click.echo(profile_toml(as_file(profile.to_dict()), header="\n".join(header)), nl=False)


@profiles.command()
@click.argument("files", nargs=-1)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@_JSON
@click.pass_context
def lint(context: click.Context, files: tuple[str, ...], strict: bool, as_json: bool) -> None:
    """Check profile and rules FILES (or profiles by name), by default all of them.

    Errors name file, line, key and what is allowed; a warning is a figure without evidence. Exit code 2
    when there is an error.
    """
    from edgekit.profile_lint import all_files, lint_file

    checked = [_file(item) for item in files] or all_files()
    findings = [finding for path in checked for finding in lint_file(path)]
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        _print_json({"files": len(checked), "findings": [finding.to_dict() for finding in findings]})
    else:
        for finding in findings:
            click.echo(str(finding), err=finding.level == "error")
        click.echo(f"{len(checked)} files: {errors} errors, {len(findings) - errors} warnings")
    context.exit(2 if errors or (strict and findings) else 0)


def _file(name: str) -> Path:
    """A file given by its path, or that of the profile called so."""
    from edgekit.profile import profile_file

    path = Path(name)
    return path if path.suffix or path.exists() or os.sep in name else profile_file(name)


@profiles.command()
@click.argument("name")
@click.option("--from", "source", metavar="PROFILE", help="Start from a copy of this profile.")
@click.option("--blank", is_flag=True, help="Start from example values, every key explained.")
@click.option("--out", type=click.Path(path_type=Path), help="File or folder; default: NAME.toml here.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def new(name: str, source: str | None, blank: bool, out: Path | None, force: bool) -> None:
    """Write a new profile NAME to fill in.

    Put it into a folder that EDGEKIT_PROFILES names, and `edgekit convert --profile NAME` finds it.
    """
    from edgekit.profile import profile_file
    from edgekit.profile_schema import PROFILE_MEANINGS
    from edgekit.profile_text import BLANK, copied, profile_toml

    if blank == bool(source):
        raise UsageError("give either --from PROFILE or --blank")
    if source:
        text = copied(profile_file(source).read_text(encoding="utf-8"), source=source, name=name)
    else:
        header = f"{name}: facts only; every figure has its source under [[evidence]]."
        shape = {**BLANK, "name": name, "title": name}
        text = profile_toml(shape, header=header, comments=_explained(PROFILE_MEANINGS))
    _write(text, _place(name, out), force)


def _explained(meanings: Any) -> dict[str, str]:
    """Meanings of keys with the values allowed."""
    from edgekit.profile import BASES, KINDS, PRECISIONS, RUNTIMES, TARGETS
    from edgekit.rules import list_rules

    allowed = {
        "accelerators.kind": KINDS,
        "targets.name": TARGETS,
        "targets.runtime": RUNTIMES,
        "targets.rules": list_rules(),
        "targets.precisions": PRECISIONS,
        "evidence.basis": BASES,
    }
    notes = {
        key: f"{text} One of: {', '.join(allowed[key])}." for key, text in meanings.items() if key in allowed
    }
    return {**meanings, **notes}


def _place(name: str, out: Path | None) -> Path:
    if out is None:
        return Path(f"{name}.toml")
    return out / f"{name}.toml" if out.is_dir() else out


def _write(text: str, path: Path, force: bool) -> None:
    """Write a profile and read it back: what is written here is never refused later.

    Raises:
        UsageError: the file is there already, or could not be a profile.
        StorageError: not writable.
    """
    from edgekit.profile import load_profile

    if path.suffix != ".toml":
        raise UsageError("a profile's file ends in .toml", where=str(path))
    if path.exists() and not force:
        raise UsageError("is there already", where=str(path), remedy="--force overwrites it")
    before = path.read_bytes() if path.exists() else None
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", where=str(path)) from error
    try:
        load_profile(str(path))
    except UsageError:
        path.unlink() if before is None else path.write_bytes(before)
        raise
    click.echo(f"{path} written; check it with: edgekit profiles lint {path}")


@profiles.command()
@click.option("--name", default="", help="Name of the profile; default: the file's, else the board's.")
@click.option("--out", type=click.Path(path_type=Path), help="File or folder to write; default: print.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def detect(name: str, out: Path | None, force: bool) -> None:
    """Write a profile of this machine, from the machine itself.

    Processor and its extensions, memory, board, operating system, Python, installed runtimes. What a
    board does not tell about itself is left out.
    """
    from datetime import datetime, timezone

    from edgekit.profile_detect import profile_of, read_machine
    from edgekit.profile_text import profile_toml

    given = name or (out.stem if out and out.suffix == ".toml" else "")
    day = datetime.now(timezone.utc).date().isoformat()
    profile = profile_of(read_machine(), name=given, day=day)
    text = profile_toml(profile, header=f"{profile['title']}: as the machine says of itself.")
    if out is None:
        click.echo(text, nl=False)
    else:
        _write(text, _place(profile["name"], out), force)


@profiles.command()
@click.argument("kind", type=click.Choice(("profile", "rules")), default="profile")
def schema(kind: str) -> None:
    """Print the JSON Schema of profile files, or of rules files."""
    from edgekit.profile_schema import schema_text

    click.echo(schema_text(kind), nl=False)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
