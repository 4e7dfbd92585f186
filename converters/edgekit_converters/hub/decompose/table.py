"""The register of decompositions."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgekit_converters.hub.build import Rule

_RULES: dict[str, list[Rule]] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a decomposition for nodes of `kinds` (``domain:op`` outside the default domain)."""

    def register(function: Rule) -> Rule:
        for kind in kinds:
            _RULES.setdefault(kind, []).append(function)
        return function

    return register


def key(node: ir.Node) -> str:
    """How sets of supported operators and this table name a node's operator."""
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type


def decompositions(node: ir.Node) -> tuple[Rule, ...]:
    """The decompositions of `node`, the preferred one first."""
    return tuple(_RULES.get(key(node), ()))


def decomposable() -> frozenset[str]:
    """The operators that have a decomposition of ours."""
    return frozenset(_RULES)
