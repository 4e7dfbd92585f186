"""The register of rewrites: by operator, each with the name that reports give it."""

from __future__ import annotations

from collections.abc import Callable

from edgekit_converters.hub.build import Rule

REWRITES: dict[str, list[tuple[str, Rule]]] = {}


def rewrite(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a rule for nodes of `kinds` under the function's name."""

    def register(function: Rule) -> Rule:
        for kind in kinds:
            REWRITES.setdefault(kind, []).append((function.__name__, function))
        return function

    return register
