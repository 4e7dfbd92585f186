"""The same program for many samples at once, where that is provably the same.

A package takes one sample, as a phone does. `with_free_batch` follows the axis that stands for the sample
through every op and gives back the program with this axis free, or None when an op mixes samples, asks for
the axis' size, or is not known here: then samples are run one by one. A rule sees static shapes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import axes_of, whole
from edgekit_converters.targets.coreml.evaluate.program import Block, Program, Step, Value


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


def with_free_batch(program: Program) -> Program | None:
    """The program with the first axis of every input free, or None."""
    from edgekit_converters.targets.coreml.evaluate.batch_rules import RULES

    try:
        batched = {value.number: 0 for value in program.main.inputs if _has_one_sample(value)}
        constants, steps = dict(program.constants), []
        values = dict(program.values)
        for step in program.main.steps:
            steps.append(_freed(step, program, batched, constants, values, RULES))
        for value in program.main.inputs:
            values[value.number] = _free(value, 0)
    except NotBatchableError:
        return None
    if any(batched.get(number) != 0 for number in program.main.outputs):
        return None
    inputs = tuple(values[value.number] for value in program.main.inputs)
    main = Block(inputs=inputs, steps=tuple(steps), outputs=program.main.outputs)
    return replace(program, main=main, constants=constants, values=values)


def _has_one_sample(value: Value) -> bool:
    if not sizes(value) or value.shape[0] != 1:
        raise NotBatchableError(f"input {value.name} has no batch of one")
    return True


def _free(value: Value, axis: int) -> Value:
    return replace(value, shape=(*value.shape[:axis], None, *value.shape[axis + 1 :]))


def _freed(
    step: Step,
    program: Program,
    batched: dict[int, int],
    constants: dict[int, Any],
    values: dict[int, Value],
    rules: Mapping[str, Rule],
) -> Step:
    if not step.reads() & set(batched):
        return step
    if step.kind not in rules:
        raise NotBatchableError(f"{step.kind} has no rule")
    facts = Facts(step=step, program=program, batched=batched, changed={})
    found = rules[step.kind](facts)
    axes = found if isinstance(found, tuple) else (found,) * len(step.outputs)
    inputs = dict(step.inputs)
    for name, item in facts.changed.items():
        inputs[name] = -1 - len(constants)  # a number that no value of the package has
        constants[-1 - len(constants)] = item
    outputs = []
    for value, axis in zip(step.outputs, axes, strict=True):
        if sizes(value)[axis : axis + 1] != (1,) and step.kind != "classify":
            raise NotBatchableError(f"{step.kind}: {value.name} has no axis of one sample")
        batched[value.number] = axis
        values[value.number] = _free(value, axis)
        outputs.append(values[value.number])
    return replace(step, inputs=inputs, outputs=tuple(outputs))


def elementwise(facts: Facts) -> int:
    """Broadcast from the end: every input has its sample axis at the same place, or one element there."""
    rank, found = len(facts.out()), set()
    for item in facts.step.inputs.values():
        number = item if isinstance(item, int) else -1
        if number in facts.batched:
            found.add(facts.batched[number] - len(facts.program.values[number].shape) + rank)
    if len(found) != 1:
        raise NotBatchableError(f"{facts.step.kind}: the sample axis is at {sorted(found)}")
    return found.pop()


def images(facts: Facts) -> int:
    """Ops over (samples, channels, …) that treat the first axis as a batch."""
    if facts.only("x") != 0:
        raise NotBatchableError(f"{facts.step.kind}: the first axis is not the sample")
    return 0


def kept(facts: Facts, touched: Any, name: str = "x") -> int:
    """The sample axis stays where it is, since `touched` does not contain it."""
    at = facts.only(name)
    if at in axes_of(touched, len(facts.shape(name))):
        raise NotBatchableError(f"{facts.step.kind}: works along the samples")
    return at


def along(parameter: str) -> Rule:
    """An op along the axes that `parameter` names; all of them when it is not given."""
    return lambda facts: kept(facts, facts.constant(parameter))


def reduced(parameter: str) -> Rule:
    """An op that removes the axes that `parameter` names, unless it keeps them as one."""

    def rule(facts: Facts) -> int:
        axes = axes_of(facts.constant(parameter), len(facts.shape("x")))
        at = kept(facts, axes)
        return at if bool(facts.constant("keep_dims")) else at - sum(axis < at for axis in axes)

    return rule


def reshape(facts: Facts) -> int:
    """The elements before the sample axis must be as many as before."""
    at, old, new = facts.only("x"), facts.shape("x"), facts.out()
    before = prod(old[:at])
    for place, size in enumerate(new):
        if size == 1 and prod(new[:place]) == before and place >= min(at, 1):
            facts.changed["shape"] = np.array([*new[:place], -1, *new[place + 1 :]], np.int32)
            return place
    raise NotBatchableError(f"reshape of {old} to {new} loses the sample axis")


def transpose(facts: Facts) -> int:
    """The sample axis moves."""
    at = facts.only("x")
    return axes_of(facts.constant("perm"), len(facts.shape("x"))).index(at)


def expand_dims(facts: Facts) -> int:
    """New axes before the sample axis push it back."""
    at, new = facts.only("x"), set(axes_of(facts.constant("axes"), len(facts.out())))
    old = [place for place in range(len(facts.out())) if place not in new]
    return old[at]


def squeeze(facts: Facts) -> int:
    """Named axes go; without names all axes of one would, the samples' too."""
    if facts.constant("axes") is None:
        raise NotBatchableError("squeeze without axes")
    axes = axes_of(facts.constant("axes"), len(facts.shape("x")))
    return kept(facts, axes) - sum(axis < facts.only("x") for axis in axes)


def joined(facts: Facts) -> int:
    """concat and stack of values that all depend on the sample."""
    numbers = facts.step.inputs["values"]
    found = {facts.batched.get(n) for n in (numbers if isinstance(numbers, tuple) else (numbers,))}
    at = found.pop() if len(found) == 1 else None
    if at is None:
        raise NotBatchableError(f"{facts.step.kind}: only some of its values depend on the sample")
    axis = int(facts.constant("axis")) % len(facts.out())
    if facts.step.kind == "stack":
        return at + int(axis <= at)
    if axis == at:
        raise NotBatchableError("concat along the samples")
    return at


def matmul(facts: Facts) -> int:
    """The sample axis may be a batch axis, a row of x, or a column of y."""
    rank, found = len(facts.out()), set()
    for name in ("x", "y"):
        at = facts.axis(name)
        if at is None:
            continue
        own = len(facts.shape(name))
        turned = bool(facts.constant(f"transpose_{name}"))
        free = own - (1 if (name == "y") != turned else 2)
        if own < 2 or at not in (*range(own - 2), free):
            raise NotBatchableError("matmul sums over the samples")
        found.add(at - own + rank if at < own - 2 else rank - (2 if name == "x" else 1))
    if len(found) != 1:
        raise NotBatchableError("matmul of different sample axes")
    return found.pop()


def whole_vector(facts: Facts, name: str) -> list[int]:
    """A constant vector of whole numbers as a list."""
    return list(whole(facts.constant(name)))
