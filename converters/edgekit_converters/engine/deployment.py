"""Another iOS version than the profile's: the operating system is an axis of its own beside the phone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from edgekit.errors import UsageError
from edgekit.profile import Profile, ProfileTarget
from edgekit.rules import list_rules, load_rules
from edgekit.tomlfile import did_you_mean

_RULES = "coreml-"


def deployment_targets() -> tuple[str, ...]:
    """The names that there are rules for, ``iOS15`` and so on."""
    versions = (name.removeprefix(_RULES) for name in list_rules() if name.startswith(_RULES))
    return tuple(version.replace("ios", "iOS") for version in versions)


def deployed(profile: Profile, name: str | None) -> Profile:
    """`profile` with its Core ML target as iOS version `name` has it; unchanged when that is None.

    Raises:
        UsageError: there are no rules for such a version.
    """
    if name is None:
        return profile
    if name not in deployment_targets():
        advice = did_you_mean(name, deployment_targets())
        raise UsageError(
            f"unknown deployment target {name!r}", remedy=advice, code="unknown_deployment_target"
        )
    return replace(profile, targets=tuple(_deployed(item, name) for item in profile.targets))


def check_deployable(profiles: Sequence[Profile], targets: Sequence[str]) -> None:
    """An iOS version is said for something.

    Raises:
        UsageError: no profile builds Core ML.
    """
    built = {item.name for profile in profiles for item in profile.targets}
    if "coreml" not in (built & set(targets) if targets else built):
        raise UsageError(
            "an iOS version is given, and no Core ML is built",
            where="--deployment-target",
            remedy="leave it out, or add a profile of an iPhone",
            code="unknown_deployment_target",
        )


def left_out(before: Sequence[Profile], after: Sequence[Profile], precisions: Sequence[str]) -> Iterator[str]:
    """What ``--precision all`` leaves out because an older iOS has it not, in sentences."""
    if "all" not in precisions:
        return
    for old, new in zip(before, after, strict=True):
        for had, has in zip(old.targets, new.targets, strict=True):
            gone = [item for item in had.precisions if item not in has.precisions]
            if gone:
                where = has.options.get("deployment_target", has.rules)
                yield f"{old.name}: {where} has no {', '.join(gone)}: left out of all"


def _deployed(target: ProfileTarget, name: str) -> ProfileTarget:
    if target.name != "coreml":
        return target
    rules = load_rules(f"{_RULES}{name.lower()}")
    return replace(
        target,
        rules=rules.name,
        precisions=rules.precisions,
        default=tuple(item for item in target.default if item in rules.precisions),
        options={**target.options, "deployment_target": name},
    )
