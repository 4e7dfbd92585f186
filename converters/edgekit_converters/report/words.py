"""What was run and what was not, in sentences: the labels executed, emulated and prepared spelt out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.package import Variant

METHODS = ("executed", "emulated", "prepared")


def counted(variants: Sequence[Variant]) -> dict[str, int]:
    """Variants by method, in the order of METHODS."""
    return {method: sum(item.verification.method == method for item in variants) for method in METHODS}


def sentences(variants: Sequence[Variant]) -> list[tuple[str, str]]:
    """(method, sentence) for every group of variants that the same thing ran, or that nothing ran."""
    found = []
    for method in METHODS:
        chosen = [item for item in variants if item.verification.method == method]
        for group in _groups(chosen):
            found.append((method, _said(method, group)))
    if any(item.verification.method != "prepared" for item in variants):
        found.append(_where(variants))
    return found


def in_short(variants: Sequence[Variant]) -> str:
    """One line on how many were executed, emulated and prepared, and on whether any device took part."""
    counts = ", ".join(f"{count} {method}" for method, count in counted(variants).items() if count)
    if not any(item.verification.on_target for item in variants):
        return f"{counts}; none has run on the device it is for"
    there = _listed(_profiles([item for item in variants if item.verification.on_target]))
    return f"{counts}; this machine is itself a {there}"


def _groups(variants: Sequence[Variant]) -> Iterable[list[Variant]]:
    """Variants of one runtime, version and reason together."""
    groups: dict[tuple[str, ...], list[Variant]] = {}
    for item in variants:
        check = item.verification
        why = str(check.metrics.get("why", "")) if check.method == "prepared" else ""
        key = (item.target, str(check.runtime), str(check.runtime_version), str(check.backend), why)
        groups.setdefault(key, []).append(item)
    return groups.values()


def _said(method: str, group: Sequence[Variant]) -> str:
    first = group[0].verification
    names = _named(group)
    if method == "prepared":
        why = str(first.metrics.get("why", "nothing here can run it")).removeprefix("prepared: ")
        return f"{names}: built and checked as a file, not run ({why})."
    backend = f" ({first.backend})" if first.backend else ""
    by = f"{first.runtime} {first.runtime_version}{backend}"
    if method == "emulated":
        return f"{names}: computed by {by}; the target's own runtime did not run."
    return f"{names}: run by {by}, on this very file."


def _where(variants: Sequence[Variant]) -> tuple[str, str]:
    there = [item for item in variants if item.verification.on_target]
    machine = next(v.verification.machine for v in variants if v.verification.method != "prepared")
    if there:
        rest = " The others ran here, not on the device they are for." if len(there) < len(variants) else ""
        return "where", f"This machine is itself a {_listed(_profiles(there))}.{rest}"
    return "where", f"All of it ran on this {machine} machine; no variant has run on the device it is for."


def _named(group: Sequence[Variant]) -> str:
    """One variant by its id, several by their target, boards and precisions."""
    if len(group) == 1:
        return group[0].id
    precisions = _listed(list(dict.fromkeys(item.precision for item in group)))
    return f"{len(group)} {group[0].target} variants for {_listed(_profiles(group))}, {precisions}"


def _profiles(group: Sequence[Variant]) -> list[str]:
    return list(dict.fromkeys(item.profile for item in group))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
