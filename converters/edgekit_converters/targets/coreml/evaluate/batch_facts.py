"""What a rule of `batch_rules` sees of an op, and says about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_converters.targets.coreml.evaluate.program import Program, Step, Value


class NotBatchableError(Exception):
    """An op does not treat samples apart, as far as its rule can tell."""


@dataclass(kw_only=True)
class Facts:
    """What a rule may look at, and what it may change: `changed` replaces constant inputs."""

    step: Step
    program: Program
    batched: Mapping[int, int]
    changed: dict[str, Any]

    def axis(self, name: str) -> int | None:
        """The sample axis of an input, None if it is the same for all samples."""
        number = self.step.inputs.get(name)
        return self.batched.get(number) if isinstance(number, int) else None

    def only(self, *names: str) -> int:
        """The one axis of the first of `names`, when no input but these depends on the sample."""
        for name, item in self.step.inputs.items():
            numbers = item if isinstance(item, tuple) else (item,)
            if name not in names and any(number in self.batched for number in numbers):
                raise NotBatchableError(f"{self.step.kind}: {name} depends on the sample")
        found = self.axis(names[0])
        if found is None:
            raise NotBatchableError(f"{self.step.kind}: {names[0]} does not depend on the sample")
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Static shape of an input."""
        number = self.step.inputs[name]
        assert isinstance(number, int)
        return sizes(self.program.values[number])

    def out(self, index: int = 0) -> tuple[int, ...]:
        """Static shape of an output."""
        return sizes(self.step.outputs[index])

    def constant(self, name: str) -> Any:
        """Value of a constant input; None if it is not given."""
        number = self.step.inputs.get(name)
        if number is None:
            return None
        if not isinstance(number, int) or number not in self.program.constants:
            raise NotBatchableError(f"{self.step.kind}: {name} is computed")
        return self.program.constants[number]


def sizes(value: Value) -> tuple[int, ...]:
    """A shape without free axes."""
    if any(size is None for size in value.shape):
        raise NotBatchableError(f"{value.name} has a free axis")
    return tuple(size for size in value.shape if size is not None)


Rule = Callable[[Facts], int | tuple[int, ...]]
