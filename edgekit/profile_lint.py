"""Faults of profile and rules files: what the reader refuses, and what it lets pass but should not be.

Errors are the reader's own (file, line, key, allowed values). Warnings: figures and rules without
evidence, evidence for nothing, precisions its rules do not list, a name that hides a shipped profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import ProfileError, UsageError
from edgekit.profile import Profile, load_profile, profiles_folder, search_folders
from edgekit.profile_text import as_file
from edgekit.rules import list_rules, load_rules, read_rules
from edgekit.tomlfile import read_toml
from edgekit.tomllines import key_lines, line_of


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault: `level` is ``error`` or ``warning``, `where` file, line and key."""

    level: str
    where: str
    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.level}: {self.message}"
        return f"{text} ({self.remedy})" if self.remedy else text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def all_files() -> tuple[Path, ...]:
    """Every profile and rules file of all folders searched."""
    folders = [place for base in search_folders() for place in (base, base / "rules")]
    return tuple(path for folder in folders for path in sorted(folder.glob("*.toml")))


def lint_file(path: Path) -> list[Finding]:
    """Faults of one profile or rules file; a file with a `target` key is a rules file."""
    try:
        if "target" in read_toml(path, ProfileError).names():
            return _rules(path)
        if path.suffix != ".toml":
            raise ProfileError("the file of a profile ends in .toml", where=str(path))
        profile = load_profile(str(path))
    except UsageError as error:
        where = error.where or str(path)
        return [Finding(level="error", where=where, message=error.message, remedy=error.remedy)]
    lines = key_lines(path.read_text(encoding="utf-8"))
    return [_placed(path, lines, *fault) for fault in (*_targets(profile), *_evidence(profile, path))]


def _rules(path: Path) -> list[Finding]:
    rules, found = read_rules(path), []
    if not rules.sources:
        found.append(("sources", "no evidence", "say where these rules come from"))
    if not rules.ops and set(rules.precisions) & {"int8", "int16x8"}:
        found.append(("op", "quantized precisions, and no op may be quantized", "add [[op]] tables"))
    lines = key_lines(path.read_text(encoding="utf-8"))
    return [_placed(path, lines, "warning", *fault) for fault in found]


def _placed(path: Path, lines: dict[str, int], level: str, key: str, message: str, remedy: str) -> Finding:
    line = line_of(key, lines)
    file = f"{path}:{line}" if line else str(path)
    return Finding(level=level, where=f"{file}: {key}", message=message, remedy=remedy)


Fault = tuple[str, str, str, str]


def _targets(profile: Profile) -> Iterator[Fault]:
    for index, target in enumerate(profile.targets):
        key = f"targets[{index}]"
        if target.rules not in list_rules():
            allowed = ", ".join(name for name in list_rules() if name.startswith(f"{target.name}-"))
            yield "error", f"{key}.rules", f"no rules {target.rules!r}", f"there are {allowed or 'none'}"
            continue
        try:
            rules = load_rules(target.rules)
        except ProfileError as error:
            said = f"{_place_of(error)}{error.message}"
            yield "error", f"{key}.rules", f"the rules {target.rules} are faulty", said
            continue
        if rules.target != target.name:
            yield (
                *("error", f"{key}.rules"),
                f"{rules.name} is for {rules.target}, not {target.name}",
                f"name rules of {target.name}",
            )
        for precision in sorted(set(target.precisions) - set(rules.precisions)):
            allowed = ", ".join(rules.precisions)
            yield "warning", f"{key}.precisions", f"{rules.name} has no {precision}", f"it has {allowed}"


def _place_of(error: ProfileError) -> str:
    """Where a faulty rules file is faulty, to be put before the message."""
    return f"{error.where}: " if error.where else ""


def _evidence(profile: Profile, path: Path) -> Iterator[Fault]:
    claimed = [fact for item in profile.evidence for fact in item.facts]
    for fact in facts_of(profile):
        if not any(_covers(entry, fact) for entry in claimed):
            yield "warning", _place(fact, profile), "no evidence", f'name "{fact}" in an [[evidence]] table'
    for index, item in enumerate(profile.evidence):
        for entry in item.facts:
            if not _is_there(entry, profile):
                yield (
                    "warning",
                    f"evidence[{index}].facts",
                    f"{entry!r} names nothing here",
                    "correct the key",
                )
    if (profiles_folder() / path.name).is_file() and path.resolve().parent != profiles_folder().resolve():
        yield "warning", "name", f"hides the shipped profile {profile.name}", "choose another name"


def facts_of(profile: Profile) -> tuple[str, ...]:
    """The figures of a profile that need a source, as evidence names them."""
    shape = as_file(profile.to_dict())
    facts = [f"cpu.{key}" for key, value in shape["cpu"].items() if value]
    facts += ["os", *(f"runtimes.{name}" for name in profile.runtimes)]
    facts += [f"targets.{target.name}" for target in profile.targets]
    facts += [key for key in ("accelerators", "memory_mb") if shape[key]]
    facts += [f"budgets.{key}" for key, value in shape["budgets"].items() if value is not None]
    facts += ["match.machines"] if profile.match.machines and not profile.match.runtimes else []
    return (*facts, *(["match.models"] if profile.match.models else []))


def _covers(entry: str, fact: str) -> bool:
    """Whether evidence for `entry` is one for `fact`: the same, or a table around it."""
    return entry == fact or fact.startswith(f"{entry}.")


def _is_there(entry: str, profile: Profile) -> bool:
    here: Any = as_file(profile.to_dict())
    for part in entry.split("."):
        if isinstance(here, list | tuple):
            named = [item for item in here if item.get("name") == part]
            fields = [item[part] for item in here if item.get(part)]
            here = named[0] if named else fields[0] if fields else None
        else:
            here = here.get(part) if isinstance(here, dict) else None
        if here is None:
            return False
    return True


def _place(fact: str, profile: Profile) -> str:
    """Where a fact stands: targets are named in evidence, but numbered in the file."""
    head, _, name = fact.partition(".")
    if head == "accelerators":
        return "accelerators[0]"
    if head != "targets":
        return fact
    index = next(index for index, item in enumerate(profile.targets) if item.name == name)
    return f"targets[{index}]"
