"""What a pass is, and the runner that holds it to its word.

A pass declares what it requires and what it ensures as named conditions. The runner checks both and
names pass, condition and offender: a violated condition is a defect of ours, never of the user.
Result type: `onnx_ir.passes.PassResult(model, modified)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit.errors import EdgekitError


@dataclass(frozen=True)
class Condition:
    """A property of a graph. `offender` names what breaks it, None when it holds."""

    name: str
    offender: Callable[[ir.Model], str | None]


class PassViolation(EdgekitError):
    """A pass was called on, or left behind, a graph that breaks a condition it declares."""

    default_code = "pass_violation"


class Pass(ABC):
    """One rewriting of the model, in place."""

    requires: ClassVar[tuple[Condition, ...]] = ()
    ensures: ClassVar[tuple[Condition, ...]] = ()

    @abstractmethod
    def call(self, model: ir.Model) -> PassResult:
        """Rewrite `model`."""


def run(model: ir.Model, passes: Iterable[Pass]) -> tuple[str, ...]:
    """Run `passes` in order; the names of those that changed something.

    Raises:
        PassViolation: a declared condition does not hold.
    """
    changed = []
    for item in passes:
        name = type(item).__name__
        _check(model, item.requires, f"{name} requires")
        if item.call(model).modified:
            changed.append(name)
        _check(model, item.ensures, f"{name} ensures")
    return tuple(changed)


def _check(model: ir.Model, conditions: Iterable[Condition], who: str) -> None:
    for condition in conditions:
        offender = condition.offender(model)
        if offender is not None:
            raise PassViolation(
                f"{who} {condition.name}, but {offender} breaks it",
                remedy="this is a defect of edgekit; please report it with the model",
            )
