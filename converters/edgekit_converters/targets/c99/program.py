"""A TFLite file as a program: steps in order, and the place of every tensor in one arena."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekit_converters.errors import Refusal
from edgekit_converters.frontends.tflite_model.reader import File, Op, Stored
from edgekit_converters.targets.c99.arena import Buffer, plan
from edgekit_converters.targets.c99.ops import OPS
from edgekit_converters.targets.c99.steps import Bound, Step, count

_REMEDY = "the file is not as a converter writes it; convert the source again"
_PORTS = (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Program:
    """Steps that compute something; `offsets` places every tensor that is computed or given."""

    file: File
    steps: tuple[Step, ...]
    offsets: Mapping[int, int]
    arena: int

    @property
    def facts(self) -> dict[str, Any]:
        """What a report tells."""
        kinds: dict[str, int] = {}
        for op in self.file.ops:
            kinds[op.kind] = kinds.get(op.kind, 0) + 1
        return {"ops": kinds, "arena_bytes": self.arena}


def program(file: File) -> Program:
    """Plan `file`.

    Raises:
        Refusal: an operation that is not taken, by its name, or ports of another type.
    """
    for name, index in (*file.inputs.items(), *file.outputs.items()):
        _check_port(name, file.tensors[index])
    _check_order(file)
    steps = [_step(file, op) for op in file.ops]
    groups = _groups(file, steps)
    offsets, size = _placed(file, steps, groups)
    return Program(
        file=file, steps=tuple(step for step in steps if not step.alias), offsets=offsets, arena=size
    )


def _check_port(name: str, tensor: Stored) -> None:
    if tensor.dtype not in _PORTS or tensor.data is not None:
        what = "a constant" if tensor.data is not None else f"of type {tensor.dtype}"
        raise Refusal(
            f"port {name!r} is {what}: the C takes int8, uint8 and float32",
            remedy="use --precision int8",
            code="unsupported_type",
        )


def _check_order(file: File) -> None:
    """Every operation reads what is there, and nothing is empty."""
    there = set(file.inputs.values())
    for op in file.ops:
        for index in (*op.inputs, *op.outputs):
            if index >= 0 and min(file.tensors[index].shape, default=1) < 1:
                raise Refusal(
                    f"tensor {file.tensors[index].name!r} is empty", remedy=_REMEDY, code="unsupported_graph"
                )
        for index in op.inputs:
            if index >= 0 and index not in there and file.tensors[index].data is None:
                raise Refusal(
                    f"{op.kind} reads {file.tensors[index].name!r} before it is written",
                    remedy=_REMEDY,
                    code="unsupported_graph",
                )
        there |= set(op.outputs)
    if not set(file.outputs.values()) <= there:
        raise Refusal("an output is never written", remedy=_REMEDY, code="unsupported_graph")


def _step(file: File, op: Op) -> Step:
    where = file.tensors[op.outputs[0]].name if op.outputs else ""
    if op.kind not in OPS:
        raise Refusal(
            f"operation {op.kind} ({where}) has no kernel in C99",
            remedy="use the target tflm; the page docs/targets/c99.md lists what is there",
            code="unsupported_op",
        )
    bound = Bound(file=file, op=op, where=where)
    try:
        return OPS[op.kind](bound)
    except (IndexError, ValueError, ZeroDivisionError, TypeError) as error:
        bound.refuse(f"cannot be right: {type(error).__name__}: {error}")


def _groups(file: File, steps: Sequence[Step]) -> dict[int, int]:
    """The tensor whose memory each tensor has: reshaped ones, and results written over their operand."""
    last = _last_use(steps)
    kept = set(file.outputs.values())
    found: dict[int, int] = {index: index for index in _computed(file, steps)}
    for at, step in enumerate(steps):
        if step.alias:
            _join(found, step.inputs[0], step.outputs[0])
            continue
        for place in step.in_place:
            source, target = step.inputs[place], step.outputs[0]
            members = [index for index, root in found.items() if root == found.get(source)]
            free = members and all(last.get(index, -1) <= at for index in members)
            fits = file.tensors[source].dtype.itemsize == file.tensors[target].dtype.itemsize
            if free and fits and not kept & set(members):
                _join(found, source, target)
                break
    return found


def _join(groups: dict[int, int], source: int, target: int) -> None:
    groups[target] = groups[source]


def _computed(file: File, steps: Sequence[Step]) -> list[int]:
    """Tensors that need memory: inputs, then what the steps give, in order."""
    given = list(file.inputs.values())
    made = [index for step in steps for index in step.outputs]
    if len({*given, *made}) != len(given) + len(made):
        raise Refusal("a tensor is written twice", remedy=_REMEDY, code="unsupported_graph")
    return [*given, *made]


def _last_use(steps: Sequence[Step]) -> dict[int, int]:
    """Per tensor, the last step that reads it."""
    return {index: at for at, step in enumerate(steps) for index in step.inputs}


def _placed(file: File, steps: Sequence[Step], groups: Mapping[int, int]) -> tuple[dict[int, int], int]:
    first = dict.fromkeys(file.inputs.values(), -1)
    first.update({index: at for at, step in enumerate(steps) for index in step.outputs})
    last = {**first, **_last_use(steps), **dict.fromkeys(file.outputs.values(), len(steps))}
    buffers: dict[int, Buffer] = {}
    for index, root in groups.items():
        tensor = file.tensors[index]
        one = Buffer(
            key=root,
            size=max(1, count(tensor.shape) * tensor.dtype.itemsize),
            first=first[index],
            last=last.get(index, first[index]),
        )
        seen = buffers.get(root, one)
        buffers[root] = replace(
            one,
            size=max(one.size, seen.size),
            first=min(one.first, seen.first),
            last=max(one.last, seen.last),
        )
    found = plan(list(buffers.values()))
    return {index: found.offsets[root] for index, root in groups.items()}, found.size
