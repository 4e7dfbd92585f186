"""Executing a `Program` op by op. Plain numpy: what an op means is in `kernels`.

A kernel gets float32 and computes in it; what comes back is rounded to the type that the value has under
the chosen semantics. So fp16 programs round after every op and accumulate in float32, and ``float32``
semantics computes everything in float32 whatever the program says. Halves are held as float32 numbers
that a half can be; only what leaves the program has their type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.coreml.evaluate.half import rounded
from edgekit_converters.targets.coreml.evaluate.kernels import KERNELS, Array, Kernel
from edgekit_converters.targets.coreml.evaluate.program import Block, Program, Step, Value

PRECISIONS = ("float32", "float16")
_WHOLE = {
    "int4": "int8",
    "uint1": "uint8",
    "uint2": "uint8",
    "uint3": "uint8",
    "uint4": "uint8",
    "uint6": "uint8",
}
_FLOATS = ("fp16", "fp32")
_REFUSED = {
    "random_": "draws random numbers",
    "read_state": "keeps state between runs",
    "coreml_update_state": "keeps state between runs",
    "write_state": "keeps state between runs",
    "custom_layer": "is the application's own code",
    "conv_quantized": "belongs to the old neural network format",
}


def stored(dtype: str) -> np.dtype[Any]:
    """The numpy type that a value of MIL type `dtype` is held in."""
    if dtype in _FLOATS:
        return np.dtype(np.float32)
    return np.dtype(_WHOLE.get(dtype, dtype))


@dataclass(frozen=True, kw_only=True)
class _Op:
    """A step made ready: its kernel, and the values that nobody reads after it."""

    step: Step
    kernel: Kernel | None
    dead: tuple[int, ...]
    blocks: tuple[_Ready, ...]


@dataclass(frozen=True, kw_only=True)
class _Ready:
    block: Block
    ops: tuple[_Op, ...]


class Runner:
    """One program under one semantics."""

    def __init__(self, program: Program, precision: str) -> None:
        """Looks up every kernel and computes what depends on constants only.

        Raises:
            Refusal: ``no_evaluator_kernel``, with the op named.
        """
        self._precision = precision
        self._constants = dict(program.constants)
        main = program.main
        steps = tuple(step for step in main.steps if not self._folded(step))
        main = Block(inputs=main.inputs, steps=steps, outputs=main.outputs)
        self._main = _ready(main)
        self._outputs = main.outputs
        halves = (number for number in main.outputs if program.values[number].dtype == "fp16")
        self._halves = frozenset(halves if precision == "float16" else ())
        needed = main.reads()
        self._constants = {number: self._constants[number] for number in needed & set(self._constants)}

    def _folded(self, step: Step) -> bool:
        """Whether the step was computed now, once: all that it reads is constant."""
        if step.blocks or not step.reads() <= set(self._constants) or step.kind == "classify":
            return False
        op = _Op(step=step, kernel=_find(step), dead=(), blocks=())
        self._constants.update(self._apply(op, self._constants))
        return True

    def run(self, feed: Mapping[int, Array]) -> list[Any]:
        """The values of the program's outputs for `feed`, by value number."""
        values = {**self._constants, **feed}
        with np.errstate(all="ignore"):
            found = self._block(self._main, values)
        return [self._given(number, item) for number, item in zip(self._outputs, found, strict=True)]

    def _given(self, number: int, found: Any) -> Any:
        return found.astype(np.float16) if number in self._halves else found

    def _block(self, ready: _Ready, values: dict[int, Any]) -> list[Any]:
        for op in ready.ops:
            values.update(self._apply(op, values))
            for number in op.dead:
                values.pop(number, None)
        return [values[number] for number in ready.block.outputs]

    def _apply(self, op: _Op, values: Mapping[int, Any]) -> dict[int, Any]:
        if op.kernel is None:
            found = self._flow(op, values)
        else:
            arguments = {name: self._take(op, item, values) for name, item in op.step.inputs.items()}
            found = _call(op, arguments)
        outputs = op.step.outputs
        return {v.number: self._give(op, v, item) for v, item in zip(outputs, found, strict=True)}

    def _take(self, op: _Op, item: int | tuple[int, ...], values: Mapping[int, Any]) -> Any:
        if isinstance(item, tuple):
            return tuple(self._take(op, number, values) for number in item)
        return values[item]

    def _give(self, op: _Op, value: Value, found: Any) -> Any:
        """The result as it is kept, once it is what the package declares."""
        if value.dtype in ("list", "dict", "string") or op.step.kind == "classify" or isinstance(found, list):
            return found
        array = np.asarray(found)
        kept = stored(value.dtype)
        fits = len(array.shape) == len(value.shape) and all(
            w is None or n == w for n, w in zip(array.shape, value.shape, strict=True)
        )
        if not fits or (array.dtype.kind != kept.kind and array.dtype.kind + kept.kind not in ("iu", "ui")):
            raise Refusal(
                f"{op.step.kind} {op.step.name!r}: computed {array.dtype} {array.shape}, "
                f"the package declares {value.dtype} {value.shape}",
                code="evaluator_disagrees",
            )
        if value.dtype == "fp16" and self._precision == "float16" and not (op.kernel and op.kernel.moves):
            return rounded(array)
        return array if array.dtype == kept else array.astype(kept)

    def _flow(self, op: _Op, values: Mapping[int, Any]) -> Sequence[Any]:
        step = op.step
        if step.kind == "cond":
            pred = step.inputs["pred"]
            assert isinstance(pred, int)
            return self._block(op.blocks[0 if bool(values[pred]) else 1], dict(values))
        numbers = step.inputs["loop_vars"]
        state = [values[number] for number in ((numbers,) if isinstance(numbers, int) else numbers)]
        test, body = op.blocks
        while bool(self._inner(test, state, values)[0]):
            state = self._inner(body, state, values)
        return state

    def _inner(self, ready: _Ready, state: Sequence[Any], values: Mapping[int, Any]) -> list[Any]:
        own = {value.number: item for value, item in zip(ready.block.inputs, state, strict=True)}
        return self._block(ready, {**values, **own})


def _call(op: _Op, arguments: dict[str, Any]) -> tuple[Any, ...]:
    assert op.kernel is not None
    try:
        found = op.kernel.function(**arguments)
    except (ValueError, IndexError, TypeError) as error:
        raise Refusal(
            f"{op.step.kind} {op.step.name!r} cannot be computed: {error}", code="evaluator_failed"
        ) from error
    return found if isinstance(found, tuple) else (found,)


def _ready(block: Block) -> _Ready:
    """Kernels looked up, and the last reader of each value found."""
    last: dict[int, int] = {}
    made = {value.number for step in block.steps for value in step.outputs}
    for index, step in enumerate(block.steps):
        last.update(dict.fromkeys(step.reads() & made, index))
        last.update({value.number: index for value in step.outputs if value.number not in last})
    for number in block.outputs:
        last.pop(number, None)
    dead: dict[int, list[int]] = {}
    for number, index in last.items():
        dead.setdefault(index, []).append(number)
    ops = tuple(
        _Op(
            step=step,
            kernel=None if step.kind in ("cond", "while_loop") else _find(step),
            dead=tuple(dead.get(index, ())),
            blocks=tuple(_ready(inner) for inner in step.blocks),
        )
        for index, step in enumerate(block.steps)
    )
    return _Ready(block=block, ops=ops)


def _find(step: Step) -> Kernel:
    """The kernel of a step.

    Raises:
        Refusal: ``no_evaluator_kernel``.
    """
    for prefix, why in _REFUSED.items():
        if step.kind.startswith(prefix):
            raise _missing(step, f"it {why}")
    found = KERNELS.get(step.kind)
    if found is None:
        raise _missing(step, "it has no kernel")
    given = set(step.inputs)
    if not given <= found.accepted or not found.required <= given:
        odd = sorted((given - found.accepted) | (found.required - given))
        raise _missing(step, f"its inputs differ from those known: {', '.join(odd)}")
    return found


def _missing(step: Step, why: str) -> Refusal:
    return Refusal(
        f"the evaluator cannot run {step.kind} ({step.name!r}): {why}",
        remedy="use another target, or lower the model without this op",
        code="no_evaluator_kernel",
    )
