"""What is to be built: a function of profiles, their rules, and of what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from edgekit.digest import digest_of
from edgekit.errors import DataError, UsageError
from edgekit.package import Refusal
from edgekit.profile import PRECISIONS, Profile, ProfileTarget
from edgekit.rules import load_rules
from edgekit.tomlfile import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One variant to build. Variants with the same `build_key` share one artifact."""

    profile: Profile
    target: str
    precision: str
    rules: str = ""
    runtime: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """``<profile>-<target>-<precision>``."""
        return f"{self.profile.name}-{self.target}-{self.precision}"

    @property
    def build_key(self) -> tuple[str, ...]:
        """Target, precision, rules, runtime and options."""
        return self.target, self.precision, self.rules, self.runtime, digest_of(self.options)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Variants in the package's order, what cannot even be tried, and sentences about what was left out.

    `search` says as JSON how a budget chose the variants (`engine.search`), None without one.
    """

    wanted: tuple[Wanted, ...]
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()
    search: Mapping[str, Any] | None = None


def make_plan(
    profiles: Sequence[Profile],
    *,
    targets: Sequence[str],
    precisions: Sequence[str],
    installed: Sequence[str],
    has_calibration: bool,
    compressions: Sequence[str] = (),
) -> Plan:
    """Decide what to build.

    Args:
        profiles: in the order given.
        targets: asked for; empty means those of each profile that have defaults.
        precisions: asked for, ``all`` included; ``TARGET:PRECISION`` is for that target alone, and
            then what has no target is for the others. Empty means each target's defaults.
        installed: targets that exist here.
        has_calibration: whether static int8 can be built.
        compressions: ``pruned`` and ``clustered``, besides the precisions; a target whose rules say that
            its runtime gains nothing from it gets a refusal.

    Raises:
        UsageError: an unknown target or precision, or a profile that has none of the targets.
        DataError: int8 was named and there is no calibration data.
    """
    _check_words(profiles, targets, precisions)
    static = next((name for name in precisions if _of(name)[1] in CALIBRATED), None)
    if static is not None and not has_calibration:
        raise DataError(
            f"{static} was asked for, and static {_of(static)[1]} needs calibration data",
            where=f"--precision {static}",
            remedy="give --calibration FILE.npz with 100 or more real samples",
            code="needs_calibration",
        )
    wanted: list[Wanted] = []
    refused: list[Refusal] = []
    built = set()
    for profile in profiles:
        for item, reason in (
            *_of_profile(profile, targets, precisions),
            *_searched(profile, targets, compressions),
        ):
            built.add(item.target)
            problem = reason or _obstacle(item, installed, has_calibration)
            if problem is None:
                wanted.append(item)
            else:
                code, detail, remedy = problem
                refused.append(Refusal(id=item.id, reason_code=code, detail=detail, remedy=remedy))
    _check_met(precisions, built)
    notes = tuple(note for profile in profiles for note in _left_out(profile, targets, precisions))
    return Plan(wanted=tuple(wanted), refused=tuple(refused), notes=notes)


CALIBRATED = ("int8", "int16x8")
"""Precisions whose activations are quantized by the stored calibration."""
FORMS = {"pruned": "sparse", "clustered": "palette"}
"""Variants whose weights are compressed as far as the verdict accepts → what the rules call the form."""
_Problem = tuple[str, str, str]


def _obstacle(item: Wanted, installed: Sequence[str], has_calibration: bool) -> _Problem | None:
    if item.target not in installed:
        return (
            "target_not_installed",
            f"no target {item.target!r} is installed here",
            f"installed: {', '.join(installed)}",
        )
    if item.precision in (*CALIBRATED, "pruned") and not has_calibration:
        kind = "static " if item.precision in CALIBRATED else ""
        return (
            "needs_calibration",
            f"{kind}{item.precision} is not built without calibration data",
            "give --calibration FILE.npz with 100 or more real samples",
        )
    return None


def _of_profile(
    profile: Profile, targets: Sequence[str], precisions: Sequence[str]
) -> list[tuple[Wanted, _Problem | None]]:
    chosen = _chosen(profile, targets)
    found: list[tuple[Wanted, _Problem | None]] = [
        (_wanted(profile, target, precision), None)
        for target in chosen
        for precision in _precisions(target, _asked(target, precisions))
    ]
    if found:
        return found
    asked = _asked(chosen[0], precisions)
    problem = (
        "unsupported_precision",
        f"{profile.name} takes none of {', '.join(asked)} on {chosen[0].name}",
        f"it takes {', '.join(chosen[0].precisions)}",
    )
    return [(_wanted(profile, chosen[0], precision), problem) for precision in asked]


def _searched(
    profile: Profile, targets: Sequence[str], compressions: Sequence[str]
) -> Iterator[tuple[Wanted, _Problem | None]]:
    """The compressed variants asked for, refused where the rules know no gain from them."""
    for target in _chosen(profile, targets) if compressions else ():
        known = load_rules(target.rules).compression if target.rules else ()
        for precision in compressions:
            form = FORMS[precision]
            problem = None
            if form not in known:
                name = target.rules or target.name
                problem = (
                    "no_gain",
                    f"{name} gains neither size nor speed from {form} weights: its runtime unpacks them",
                    f"forms it keeps compressed: {', '.join(known) or 'none'}",
                )
            yield _wanted(profile, target, precision), problem


def _left_out(profile: Profile, targets: Sequence[str], precisions: Sequence[str]) -> Iterator[str]:
    """What was asked for and a target of the profile does not have, where it has others of it."""
    for target in _chosen(profile, targets):
        asked = [item for item in _asked(target, precisions) if item != "all"]
        missing = [item for item in asked if item not in target.precisions]
        if missing and len(missing) < len(asked):
            yield f"{profile.name} has no {', '.join(missing)} on {target.name}: left out"


def _of(word: str) -> tuple[str, str]:
    """Target and precision of ``TARGET:PRECISION``; the target of a bare precision is empty."""
    target, _, precision = word.rpartition(":")
    return target, precision


def _check_met(words: Sequence[str], built: Set[str]) -> None:
    """A precision for a target that no profile builds would say nothing."""
    for target in (name for name, _ in map(_of, words) if name and name not in built):
        raise UsageError(
            f"a precision is given for {target}, which is not built",
            remedy=f"add --target {target}, or leave that --precision out",
            code="unknown_target",
        )


def _asked(target: ProfileTarget, words: Sequence[str]) -> list[str]:
    """The precisions asked of `target`: those with its name, else those without a name."""
    pairs = [_of(word) for word in words]
    named = [precision for name, precision in pairs if name == target.name]
    return named or [precision for name, precision in pairs if not name]


def _chosen(profile: Profile, targets: Sequence[str]) -> list[ProfileTarget]:
    return [item for item in profile.targets if item.name in targets] if targets else _usual(profile)


def _usual(profile: Profile) -> list[ProfileTarget]:
    usual = [item for item in profile.targets if item.default]
    return usual or [profile.targets[0]]


def _precisions(target: ProfileTarget, asked: Sequence[str]) -> list[str]:
    if "all" in asked:
        return list(target.precisions)
    if asked:
        return [item for item in target.precisions if item in asked]
    return [item for item in target.precisions if item in (target.default or target.precisions)]


def _wanted(profile: Profile, target: ProfileTarget, precision: str) -> Wanted:
    return Wanted(
        profile=profile,
        target=target.name,
        precision=precision,
        rules=target.rules,
        runtime=target.runtime,
        options=target.options,
    )


def _check_words(profiles: Sequence[Profile], targets: Sequence[str], precisions: Sequence[str]) -> None:
    for word in precisions:
        target, precision = _of(word)
        if not target and ":" in word:
            raise UsageError(
                f"{word!r} names no target",
                remedy=f"write {precision}, or TARGET:{precision}",
                code="unknown_target",
            )
        if precision in FORMS:
            option = "--prune" if precision == "pruned" else "--cluster"
            raise UsageError(
                f"{precision!r} is no precision of its own", remedy=f"give {option}", code="unknown_precision"
            )
        if precision not in (*PRECISIONS, "all"):
            advice = did_you_mean(precision, (*PRECISIONS, "all"))
            raise UsageError(f"unknown precision {precision!r}", remedy=advice, code="unknown_precision")
    offered = {item.name for profile in profiles for item in profile.targets}
    for target in (*targets, *(name for name, _ in map(_of, precisions) if name)):
        if target not in offered:
            raise UsageError(
                f"none of the profiles has a target {target!r}",
                remedy=did_you_mean(target, offered),
                code="unknown_target",
            )
    for profile in profiles:
        if targets and not any(item.name in targets for item in profile.targets):
            has = ", ".join(item.name for item in profile.targets)
            raise UsageError(
                f"profile {profile.name} has none of the targets {', '.join(targets)}",
                remedy=f"it has {has}",
                code="unknown_target",
            )
