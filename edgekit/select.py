"""Which variant a device gets: a pure function used by the service to assign and by the agent to check.

Order: the device's profiles (most specific first); inside a profile the owner's precision order if
the device states one, else the order in which the package lists its variants (the profile's
preference); a variant of another profile is never chosen. What does not fit is named with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit.documents import DeviceFacts
from edgekit.package import Manifest, Requirements, Variant
from edgekit.versions import version_key
from edgekit.wire import Fields


@dataclass(frozen=True, kw_only=True)
class VariantEntry:
    """One row of the variant table that stands, signed, in the TUF target's ``custom``."""

    id: str
    digest: str
    profile: str
    precision: str
    target: str
    size: int
    verdict: str
    requires: Requirements
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        needs = {name: value for name, value in vars(self.requires).items() if value not in (None, ())}
        return {
            **self.extra,
            "id": self.id,
            "digest": self.digest,
            "profile": self.profile,
            "precision": self.precision,
            "target": self.target,
            "size": self.size,
            "verdict": self.verdict,
            "requires": {key: list(v) if isinstance(v, tuple) else v for key, v in needs.items()},
        }

    @classmethod
    def read(cls, source: Fields) -> VariantEntry:
        """Read from untrusted JSON."""
        needs = source.child("requires")
        return cls(
            id=source.text("id"),
            digest=source.text("digest"),
            profile=source.text("profile"),
            precision=source.text("precision"),
            target=source.text("target"),
            size=source.integer("size"),
            verdict=source.text("verdict"),
            requires=Requirements(
                runtime=needs.text("runtime"),
                min_runtime=needs.maybe_text("min_runtime"),
                machines=needs.texts("machines"),
                cpu_features=needs.texts("cpu_features"),
                memory_mb=needs.maybe_integer("memory_mb"),
                arena_kb=needs.maybe_integer("arena_kb"),
                flash_kb=needs.maybe_integer("flash_kb"),
            ),
            extra=source.rest(),
        )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The variant chosen, or None with the `reasons` (variant id → why not) for a rejection."""

    entry: VariantEntry | None
    reasons: Mapping[str, str]

    @property
    def explanation(self) -> str:
        """One line for people."""
        if self.entry:
            return f"variant {self.entry.id}"
        return (
            "; ".join(f"{name}: {why}" for name, why in self.reasons.items()) or "the package has no variants"
        )


def variant_table(manifest: Manifest) -> tuple[VariantEntry, ...]:
    """The package's variant table."""
    return tuple(_entry(item) for item in manifest.variants)


def choose_variant(
    table: Sequence[VariantEntry], facts: DeviceFacts, *, allow_unverified: bool = False
) -> Choice:
    """Choose for a device; deterministic."""
    reasons = {item.id: _why_not(item, facts, allow_unverified) for item in table}
    fitting = [item for item in table if reasons[item.id] is None]
    refused = {name: why for name, why in reasons.items() if why is not None}
    if not fitting:
        return Choice(entry=None, reasons=refused)
    order = {item.id: rank for rank, item in enumerate(table)}
    best = min(fitting, key=lambda item: (*_preference(item, facts), order[item.id]))
    return Choice(entry=best, reasons=refused)


def why_not(entry: VariantEntry, facts: DeviceFacts, *, allow_unverified: bool = False) -> str | None:
    """Why a device cannot run a variant, None when it can: the agent's own check before it installs."""
    return _why_not(entry, facts, allow_unverified)


def _entry(item: Variant) -> VariantEntry:
    return VariantEntry(
        id=item.id,
        digest=item.digest,
        profile=item.profile,
        precision=item.precision,
        target=item.target,
        size=item.size,
        verdict=item.verification.verdict,
        requires=item.requires,
    )


def _preference(item: VariantEntry, facts: DeviceFacts) -> tuple[int, int]:
    wanted = list(facts.precisions)
    precision = wanted.index(item.precision) if item.precision in wanted else len(wanted)
    return facts.profiles.index(item.profile), precision


def _why_not(item: VariantEntry, facts: DeviceFacts, allow_unverified: bool) -> str | None:
    needs = item.requires
    have = facts.runtimes.get(needs.runtime)
    checks: Iterable[tuple[bool, str]] = (
        (item.profile in facts.profiles, f"made for {item.profile}, device is {facts.hardware}"),
        (
            not facts.precisions or item.precision in facts.precisions,
            f"precision {item.precision} not enabled",
        ),
        (item.verdict != "breach", "its verdict is breach"),
        (
            item.verdict != "unverified" or allow_unverified,
            "unverified, and --allow-unverified was not given",
        ),
        (have is not None, f"needs runtime {needs.runtime}, which the device has not"),
        (
            have is None or not needs.min_runtime or version_key(have) >= version_key(needs.min_runtime),
            f"needs {needs.runtime} ≥ {needs.min_runtime}, device has {have}",
        ),
        (not needs.machines or facts.machine in needs.machines, f"needs {'/'.join(needs.machines)}"),
        (set(needs.cpu_features) <= set(facts.cpu_features), "needs CPU features the device has not"),
        (
            not (needs.memory_mb and facts.memory_mb) or needs.memory_mb <= facts.memory_mb,
            f"needs {needs.memory_mb} MB of memory, device has {facts.memory_mb}",
        ),
    )
    return next((why for fine, why in checks if not fine), None)
