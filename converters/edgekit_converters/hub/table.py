"""A register of rules by operator."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgekit_converters.hub.build import Rule


class Table:
    """Rules by operator, the preferred one first."""

    def __init__(self) -> None:
        self._rules: dict[str, list[Rule]] = {}

    def rule(self, *kinds: str) -> Callable[[Rule], Rule]:
        """Register a rule for nodes of `kinds` (``domain:op`` outside the default domain)."""

        def register(function: Rule) -> Rule:
            for kind in kinds:
                self._rules.setdefault(kind, []).append(function)
            return function

        return register

    def of(self, node: ir.Node) -> tuple[Rule, ...]:
        """The rules for `node`."""
        return tuple(self._rules.get(key(node), ()))

    @property
    def kinds(self) -> frozenset[str]:
        """The operators that have a rule."""
        return frozenset(self._rules)


def key(node: ir.Node) -> str:
    """How tables and sets of supported operators name a node's operator."""
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type
