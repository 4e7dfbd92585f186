"""`edgekit diff`: what differs between two packages, in the words of their manifests. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.package import Manifest, Variant

_METRICS = ("snr_db", "max_relative", "argmax_agreement")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference: `what` names the place, `before` and `after` are shown values (None: not there)."""

    what: str
    before: Any
    after: Any


def differences(old: Manifest, new: Manifest) -> tuple[Change, ...]:
    """Everything in which `new` differs from `old`; empty when they are the same package."""
    found = [
        *_mapping("model", {"ref": old.ref}, {"ref": new.ref}),
        *_mapping("source", _source(old), _source(new)),
        *_mapping("contract", _flat(old.contract), _flat(new.contract)),
        *_mapping("profile", _boards(old), _boards(new)),
        *_mapping("rules", _rules(old), _rules(new)),
        *_mapping("tool", old.tools, new.tools),
        *_variants(old, new),
        *_mapping("refused", _refused(old), _refused(new)),
    ]
    return tuple(found)


def to_dict(old: Manifest, new: Manifest) -> dict[str, Any]:
    """JSON-ready form of both and of their differences."""
    changes = [asdict(item) for item in differences(old, new)]
    heads = [{"ref": item.ref, "digest": item.digest} for item in (old, new)]
    return {"before": heads[0], "after": heads[1], "same": not changes, "changes": changes}


def _mapping(title: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield Change(what=f"{title} {key}", before=old.get(key), after=new.get(key))


def _source(manifest: Manifest) -> dict[str, Any]:
    return _flat(manifest.source)


def _boards(manifest: Manifest) -> dict[str, Any]:
    return {name: digest for name, digest in manifest.profiles.items() if not name.startswith("rules/")}


def _rules(manifest: Manifest) -> dict[str, Any]:
    found = manifest.profiles.items()
    return {name.removeprefix("rules/"): digest for name, digest in found if name.startswith("rules/")}


def _refused(manifest: Manifest) -> dict[str, Any]:
    return {item.id: item.reason_code for item in manifest.refused}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested members by dotted name; lists of named tables by name, other lists whole."""
    found: dict[str, Any] = {}
    for key, member in value.items():
        name = f"{prefix}{key}"
        if isinstance(member, Mapping):
            found |= _flat(member, f"{name}.")
        elif isinstance(member, list | tuple) and all(isinstance(i, Mapping) and "name" in i for i in member):
            for item in member:
                found |= _flat(item, f"{name}[{item['name']}].")
        else:
            found[name] = list(member) if isinstance(member, tuple) else member
    return found


def _variants(old: Manifest, new: Manifest) -> Iterator[Change]:
    before, after = ({item.id: item for item in m.variants} for m in (old, new))
    for name in sorted({*before, *after}):
        if name not in after or name not in before:
            one = before.get(name) or after[name]
            shown = f"{one.verification.method}, {one.verification.verdict}, {one.size} bytes"
            yield Change(
                what=f"variant {name}",
                before=shown if name in before else None,
                after=shown if name in after else None,
            )
            continue
        yield from _mapping(f"variant {name}", _facts(before[name]), _facts(after[name]))


def _facts(variant: Variant) -> dict[str, Any]:
    check = variant.verification
    found: dict[str, Any] = {
        "digest": variant.digest,
        "bytes": variant.size,
        "route": variant.route,
        "method": check.method,
        "verdict": check.verdict,
        "runtime": f"{check.runtime} {check.runtime_version}" if check.runtime else None,
        "backend": check.backend,
        "on its device": check.on_target,
    }
    for name, item in check.metrics.items():
        if isinstance(item, Mapping) and "variant" in item:
            found[name] = item["variant"]
    for output, item in check.metrics.get("outputs", {}).items():
        found |= {f"{output}.{key}": item.get(key) for key in _METRICS}
    return found
