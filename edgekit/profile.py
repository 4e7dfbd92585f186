"""Hardware profiles: one board, one flat TOML file of facts (`hw_profiles/*.toml`).

A profile says what a board is (CPU, memory, accelerators, operating system), which runtimes it has,
which targets and precisions suit it in order of preference, and where each figure comes from. Files
do not inherit from each other: what stands in one is the whole truth about that board. What a
runtime accepts stands in the rules files (`edgekit.rules`). Choosing a *variant* for a device is
`edgekit.select`'s business; here only the *profiles* that fit a device are found.

Own profiles: folders named by ``EDGEKIT_PROFILES`` (a path list) are searched before the shipped one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from edgekit.digest import PREFIX, sha256_file
from edgekit.errors import ProfileError
from edgekit.profile_facts import (
    Accelerator,
    Budgets,
    Cpu,
    Evidence,
    Match,
    Profile,
    ProfileTarget,
    RuntimeRange,
)
from edgekit.target_options import check_options
from edgekit.tomlfile import Table, did_you_mean, read_toml
from edgekit.versions import version_key

SCHEMA = 1
FOLDERS = "EDGEKIT_PROFILES"
KINDS = ("gpu", "npu", "dsp")
TARGETS = ("tflite", "onnx", "coreml", "armnn", "tidl", "triton", "tensorrt", "tflm", "c99")
RUNTIMES = (
    "litert",
    "onnxruntime",
    "coreml",
    "armnn",
    "tidl",
    "triton",
    "tensorrt",
    "tflm",
    "c99",
    "ort-web",
)
PRECISIONS = (
    *("fp32", "fp16", "dynamic", "int8", "int16x8", "w8", "int4"),
    *("palettized8", "palettized6", "palettized4", "palettized3", "palettized2", "palettized1"),
    *("sparse50", "sparse75"),
)
"""``int8`` and ``int16x8`` quantize activations too; ``dynamic``, ``w8`` and ``int4`` weights alone; a
palette has 2^n values, a sparse model that share of zeros."""
BASES = ("measured", "claimed")
NAME = r"[a-z0-9][a-z0-9-]{0,63}"
_NAME = re.compile(NAME + r"\Z")


class Facts(Protocol):
    """What a device reports about itself (`edgekit.documents.DeviceFacts`)."""

    @property
    def machine(self) -> str: ...

    @property
    def model(self) -> str | None: ...

    @property
    def runtimes(self) -> Mapping[str, str]: ...


def profiles_folder() -> Path:
    """Folder of the profile files: the checkout's ``hw_profiles``, else the one inside the wheel.

    Raises:
        ProfileError: neither is there; the installation is broken.
    """
    here = Path(__file__).resolve().parent
    checkout = here.parent / "hw_profiles"
    if checkout.is_dir() and (here.parent / "pyproject.toml").is_file():
        return checkout
    packed = here / "_hw_profiles"
    if packed.is_dir():
        return packed
    raise ProfileError(
        "the profile files are not installed", where=str(packed), remedy="install edgekit again"
    )


def search_folders() -> tuple[Path, ...]:
    """Folders searched for profiles, first come first: those of ``EDGEKIT_PROFILES``, then the shipped one.

    Raises:
        ProfileError: one of them is not a folder.
    """
    own = [Path(part).expanduser() for part in os.environ.get(FOLDERS, "").split(os.pathsep) if part]
    for folder in own:
        if not folder.is_dir():
            raise ProfileError(
                "not a folder", where=str(folder), remedy=f"{FOLDERS} or --profiles-dir names it"
            )
    return (*own, profiles_folder())


def list_profiles(folder: Path | None = None) -> tuple[str, ...]:
    """Names of all profiles, in `folder` or in all folders searched, sorted."""
    folders = (folder,) if folder else search_folders()
    return tuple(sorted({path.stem for base in folders for path in base.glob("*.toml")}))


def profile_file(name: str, folder: Path | None = None) -> Path:
    """The file of a profile: of the first folder searched that has it, or `name` itself if a path.

    A file's own name goes before an alias in another one.

    Raises:
        ProfileError: unknown, with the nearest names.
    """
    if name.endswith(".toml"):
        return Path(name)
    if _NAME.match(name):
        folders = (folder,) if folder else search_folders()
        named = (base / f"{name}.toml" for base in folders)
        also = (path for base in folders for path in sorted(base.glob("*.toml")) if name in _aliases(path))
        found = next((path for path in named if path.is_file()), None) or next(also, None)
        if found is not None:
            return found
    advice = did_you_mean(name, list_profiles(folder))
    raise ProfileError(f"unknown profile {name!r}", remedy=advice, code="unknown_profile")


def _aliases(path: Path) -> tuple[str, ...]:
    """Aliases of a profile file; none of one that cannot be read, which is told where it is asked for."""
    try:
        return read_toml(path, ProfileError).texts("aliases")
    except ProfileError:
        return ()


def load_profile(name: str, folder: Path | None = None) -> Profile:
    """Read a profile by its name, or a profile file by its path (anything ending in ``.toml``).

    Raises:
        ProfileError: unknown (with the nearest names) or invalid (with file, line, key, allowed values).
    """
    return _read(profile_file(name, folder))


def match_profiles(facts: Facts, folder: Path | None = None) -> tuple[str, ...]:
    """Names of the profiles that fit a device, most specific first.

    A named board beats a generic one, then the profile that demands more runtimes, then the name.
    """
    loaded = (load_profile(name, folder) for name in list_profiles(folder))
    ranked = [(_specificity(item, facts), item.name) for item in loaded if _fits(item, facts)]
    return tuple(name for _, name in sorted(ranked))


def _fits(profile: Profile, facts: Facts) -> bool:
    rule = profile.match
    if facts.machine not in rule.machines:
        return False
    if rule.models and _model_hit(rule, facts) == 0:
        return False
    return all(
        name in facts.runtimes
        and (name not in profile.runtimes or profile.runtimes[name].accepts(facts.runtimes[name]))
        for name in rule.runtimes
    )


def _model_hit(rule: Match, facts: Facts) -> int:
    model = (facts.model or "").lower()
    return max((len(part) for part in rule.models if part.lower() in model), default=0)


def _specificity(profile: Profile, facts: Facts) -> tuple[int, int]:
    return (-_model_hit(profile.match, facts), -len(profile.match.runtimes))


def _read(path: Path) -> Profile:
    table = read_toml(path, ProfileError, lines=True)
    schema = table.integer("schema")
    if schema != SCHEMA:
        raise table.fail("schema", f"{schema} is not supported, {SCHEMA} is", "update edgekit")
    name = table.text("name")
    if name != path.stem or not _NAME.match(name):
        raise table.fail("name", f"{name!r} must be the file's name {path.stem!r}, of a-z, 0-9 and -")
    profile = build_profile(table, digest=PREFIX + sha256_file(path))
    table.finish()
    _check(profile, table)
    return profile


def build_profile(table: Table, *, digest: str) -> Profile:
    """A profile from its table; the JSON Schema is made by handing this a table that takes notes."""
    table.integer("schema")
    platform = table.table("os")
    profile = Profile(
        name=table.text("name"),
        title=table.text("title"),
        match=_match(table.table("match")),
        cpu=_cpu(table.table("cpu")),
        memory_mb=table.integers("memory_mb", low=0),
        accelerators=table.tables("accelerators", _accelerator),
        os=platform.text("name"),
        python=platform.maybe_text("python"),
        runtimes=table.members("runtimes", _runtime),
        targets=table.tables("targets", _target),
        budgets=_budgets(table.table("budgets")),
        evidence=table.tables("evidence", _evidence),
        digest=digest,
        aliases=table.texts("aliases"),
        limits=table.texts("limits", once=True),
    )
    platform.finish()
    return profile


def _check(profile: Profile, table: Table) -> None:
    if not profile.targets:
        raise table.fail("targets", "at least one target is required")
    if not profile.evidence:
        raise table.fail("evidence", "a profile without sources is not accepted", "add an [[evidence]] table")
    _check_runtimes(profile, table)
    for index, target in enumerate(profile.targets):
        where = f"targets[{index}]"
        if target.runtime not in profile.runtimes:
            raise table.fail(f"{where}.runtime", f"{target.runtime!r} is not among the runtimes")
        if not set(target.default) <= set(target.precisions):
            raise table.fail(f"{where}.default", f"only {', '.join(target.precisions)} can be defaults")
        if any(target.name == other.name for other in profile.targets[:index]):
            raise table.fail(f"{where}.name", f"{target.name!r} is there already, higher up")
        check_options(table.at(f"{where}.options", target.options), target.name)
    if list(profile.memory_mb) != sorted(set(profile.memory_mb)):
        raise table.fail("memory_mb", "each size once, the smallest first")
    for runtime in profile.match.runtimes:
        if runtime not in profile.runtimes:
            raise table.fail("match.runtimes", f"{runtime!r} is not among the runtimes")


def _check_runtimes(profile: Profile, table: Table) -> None:
    for name, versions in profile.runtimes.items():
        where = f"runtimes.{name}"
        if name not in RUNTIMES:
            raise table.fail(
                where, f"{name!r} is not one of {', '.join(RUNTIMES)}", did_you_mean(name, RUNTIMES)
            )
        for key, version in (("minimum", versions.minimum), ("below", versions.below)):
            if version is not None and not version[:1].isdigit():
                raise table.fail(f"{where}.{key}", f"a version such as 1.2.0 was expected, not {version!r}")
        if versions.below is not None and version_key(versions.below) <= version_key(versions.minimum):
            raise table.fail(f"{where}.below", f"it must be above the minimum {versions.minimum}")


def _match(table: Table) -> Match:
    match = Match(
        machines=table.texts("machines"), models=table.texts("models"), runtimes=table.texts("runtimes")
    )
    table.finish()
    return match


def _cpu(table: Table) -> Cpu:
    cpu = Cpu(
        name=table.text("name"),
        cores=table.integer("cores", low=1),
        isa=table.text("isa"),
        features=table.texts("features"),
    )
    table.finish()
    return cpu


def _accelerator(table: Table) -> Accelerator:
    return Accelerator(
        name=table.text("name"),
        kind=table.text("kind", allowed=KINDS),
        precisions=table.texts("precisions"),
        via=table.text("via", ""),
        note=table.text("note", ""),
    )


def _runtime(table: Table) -> RuntimeRange:
    return RuntimeRange(minimum=table.text("minimum"), below=table.maybe_text("below"))


def _target(table: Table) -> ProfileTarget:
    return ProfileTarget(
        name=table.text("name", allowed=TARGETS),
        runtime=table.text("runtime", allowed=RUNTIMES),
        rules=table.text("rules"),
        precisions=table.texts("precisions", allowed=PRECISIONS, some=True, once=True),
        default=table.texts("default", allowed=PRECISIONS, once=True),
        options=table.mapping("options"),
    )


def _budgets(table: Table) -> Budgets:
    budgets = Budgets(
        latency_ms=table.maybe_number("latency_ms", above=0),
        memory_mb=table.maybe_integer("memory_mb", low=1),
        size_mb=table.maybe_number("size_mb", above=0),
        arena_kb=table.maybe_integer("arena_kb", low=1),
        flash_kb=table.maybe_integer("flash_kb", low=1),
    )
    table.finish()
    return budgets


def _evidence(table: Table) -> Evidence:
    return Evidence(
        facts=table.texts("facts", some=True),
        basis=table.text("basis", allowed=BASES),
        source=table.text("source"),
    )


__all__ = [
    "Accelerator",
    "BASES",
    "Budgets",
    "Cpu",
    "Evidence",
    "FOLDERS",
    "Facts",
    "KINDS",
    "Match",
    "NAME",
    "PRECISIONS",
    "Profile",
    "ProfileTarget",
    "RUNTIMES",
    "RuntimeRange",
    "SCHEMA",
    "TARGETS",
    "build_profile",
    "list_profiles",
    "load_profile",
    "match_profiles",
    "profile_file",
    "profiles_folder",
    "search_folders",
]
