"""The same program for many samples at once, where that is provably the same.

A package takes one sample, as a phone does. `with_free_batch` follows the axis that stands for the sample
through every op and gives back the program with this axis free, or None when an op mixes samples, asks for
the axis' size, or is not known here: then samples are run one by one. A rule sees static shapes only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgekit_converters.targets.coreml.evaluate.batch_facts import Facts, NotBatchableError, sizes
from edgekit_converters.targets.coreml.evaluate.batch_rules import RULES
from edgekit_converters.targets.coreml.evaluate.program import Block, Program, Step, Value


def with_free_batch(program: Program) -> Program | None:
    """The program with the first axis of every input free, or None."""
    try:
        batched = {value.number: 0 for value in program.main.inputs if _has_one_sample(value)}
        constants, steps = dict(program.constants), []
        values = dict(program.values)
        for step in program.main.steps:
            steps.append(_freed(step, program, batched, constants, values))
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
) -> Step:
    if not step.reads() & set(batched):
        return step
    if step.kind not in RULES:
        raise NotBatchableError(f"{step.kind} has no rule")
    facts = Facts(step=step, program=program, batched=batched, changed={})
    found = RULES[step.kind](facts)
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
