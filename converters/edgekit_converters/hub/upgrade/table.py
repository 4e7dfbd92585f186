"""The register of upgrade rules."""

from __future__ import annotations

from collections.abc import Callable

from edgekit_converters.hub.build import OPSET, Rule

_OLD: dict[str, list[tuple[int, Rule]]] = {}
_NEW: dict[str, list[Rule]] = {}


def below(opset: int, *kinds: str) -> Callable[[Rule], Rule]:
    """Register a rule for nodes of `kinds` in models older than `opset`."""

    def register(rule: Rule) -> Rule:
        for kind in kinds:
            _OLD.setdefault(kind, []).append((opset, rule))
        return rule

    return register


def above(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a rule for nodes of `kinds` in models newer than the hub's opset."""

    def register(rule: Rule) -> Rule:
        for kind in kinds:
            _NEW.setdefault(kind, []).append(rule)
        return rule

    return register


def rules_for(kind: str, source: int) -> list[Rule]:
    """The rules for a node of a model at opset `source`, oldest change first."""
    if source > OPSET:
        return list(_NEW.get(kind, ()))
    found = sorted((item for item in _OLD.get(kind, ()) if source < item[0]), key=lambda item: item[0])
    return [rule for _, rule in found]
