"""What Core ML would not compile, or is known to compute wrongly, although the package can be written.

coremltools checks most rules of the format when a program is built, and again when the evaluator loads
it. Here are those it leaves to Apple's compiler and runtime: documented limits, and defects that Apple's own
tests and issue tracker name. A package with a violation is not shipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.registry import whole
from edgekit_converters.targets.coreml.evaluate.program import Block, Program, Step, Value

_RANK = 5
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_@]*\Z")
_ALWAYS = frozenset({"fp32", "fp16", "int32", "bool", "string", "list", "dict", "state"})
_SMALL = frozenset({"int8", "uint8", "int16", "uint16"})
_PORTS = {15: {"fp32", "int32"}, 16: {"fp32", "int32", "fp16"}, 26: {"fp32", "int32", "fp16", "int8"}}
_SPECIAL = frozenset({"classify"})


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken rule. `code` is short and stable; `where` names the op or port."""

    code: str
    where: str
    why: str


def check(program: Program) -> list[Violation]:
    """All broken rules of a loaded package, in the order of its ops."""
    found = list(_ports(program))
    for step in _steps(program.main):
        for value in step.outputs:
            found += _value(step, value, program)
        rule = _RULES.get(step.kind)
        if rule is not None:
            found += [
                Violation(code=code, where=f"{step.kind} {step.name!r}", why=why)
                for code, why in rule(step, program)
            ]
    return found


def _steps(block: Block) -> Iterator[Step]:
    for step in block.steps:
        yield step
        for inner in step.blocks:
            yield from _steps(inner)


def _ports(program: Program) -> Iterator[Violation]:
    allowed = _PORTS[max(version for version in _PORTS if version <= max(program.opset, 15))]
    outputs = [program.values[number] for number in program.main.outputs]
    labelled = any(step.kind == "classify" for step in program.main.steps)
    ports = [*program.main.inputs, *([] if labelled else outputs)]
    if not program.main.inputs:
        yield Violation(code="no_inputs", where="the program", why="Core ML runs no program without inputs")
    for value in (item for item in ports if item.dtype != "state"):
        if value.dtype not in allowed:
            why = f"{value.dtype} at the boundary; iOS {program.opset} takes {', '.join(sorted(allowed))}"
            yield Violation(code="port_type", where=value.name, why=why)
        if not value.shape:
            yield Violation(code="port_rank", where=value.name, why="rank 0 at the boundary")
        if not _NAME.match(value.name):
            yield Violation(code="port_name", where=value.name, why="not a name that MIL allows")
    taken = {value.number for value in program.main.inputs}
    for value in outputs:
        if value.number in taken:
            yield Violation(code="port_both", where=value.name, why="an input that is an output too")


def _value(step: Step, value: Value, program: Program) -> Iterator[Violation]:
    where = f"{step.kind} {step.name!r}"
    if len(value.shape) > _RANK and not step.kind.startswith("constexpr_"):
        yield Violation(code="rank", where=where, why=f"rank {len(value.shape)}; Core ML has at most {_RANK}")
    if 0 in value.shape:
        yield Violation(code="empty", where=where, why=f"an empty tensor {value.shape}")
    known = _ALWAYS | (_SMALL if program.opset >= 17 else frozenset())
    if value.dtype not in known and step.kind not in _SPECIAL and not step.kind.startswith("constexpr_"):
        why = f"{value.dtype}, which iOS {program.opset} does not compute with"
        yield Violation(code="type", where=where, why=why)


def _input(step: Step, program: Program, name: str) -> Value | None:
    number = step.inputs.get(name)
    return program.values.get(number) if isinstance(number, int) else None


def _numbers(step: Step, program: Program, name: str) -> tuple[int, ...] | None:
    number = step.inputs.get(name)
    constant = program.constants.get(number) if isinstance(number, int) else None
    return None if constant is None or isinstance(constant, str | list) else whole(constant)


def _text(step: Step, program: Program, name: str) -> str:
    number = step.inputs.get(name)
    return str(program.constants.get(number, "")) if isinstance(number, int) else ""


_Rule = Callable[[Step, Program], Iterator[tuple[str, str]]]


def _pad(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """The runtime pads more than two dimensions in `constant` mode only (coremltools #2576)."""
    pairs = _numbers(step, program, "pad")
    if _text(step, program, "mode") != "constant" and pairs is not None and any(pairs[:-4]):
        yield "pad_axes", "padding that is not constant, of more than the last two axes"


def _transposed(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """The CPU cuts elsewhere than the other units do (coremltools #2281).

    coremltools writes an ``output_shape`` always; it does no harm where it is the one that follows anyway.
    """
    x, weight = _input(step, program, "x"), _input(step, program, "weight")
    shape, kind = _numbers(step, program, "output_shape"), _text(step, program, "pad_type")
    if shape is None or x is None or weight is None or kind == "same":
        return
    axes = range(len(shape) - 2)
    pads = _numbers(step, program, "pad") if kind == "custom" else None
    strides = _numbers(step, program, "strides") or (1,) * len(axes)
    gaps = _numbers(step, program, "dilations") or (1,) * len(axes)
    for i in axes:
        size, kernel = x.shape[i + 2], weight.shape[i + 2]
        if size is None or kernel is None:
            continue
        cut = 0 if pads is None else pads[2 * i] + pads[2 * i + 1]
        if shape[i + 2] != (size - 1) * strides[i] + (kernel - 1) * gaps[i] + 1 - cut:
            yield "output_shape", "which elements an output_shape keeps depends on the compute unit"
            return


def _batch_norm(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """The compiler crashes now and then (executorch #11701, coremltools #2282)."""
    value = _input(step, program, "x")
    if value is not None and len(value.shape) == 5:
        yield "norm_rank", "batch_norm of rank 5 crashes the runtime"


def _whole_product(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """The runtime cannot build a plan for it: error -14 (coremltools #2575)."""
    value = _input(step, program, "x")
    if value is not None and value.dtype == "int32":
        yield "whole_product", "a matrix product of whole numbers"


def _cast(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """What does not fit is cut off silently: only an index is known to fit, it is within a tensor."""
    value = _input(step, program, "x")
    if value is None or value.dtype != "int32" or step.outputs[0].dtype not in _SMALL:
        return
    number, readers = step.outputs[0].number, list(_steps(program.main))
    uses = {name for reader in readers for name, item in reader.inputs.items() if item == number}
    many = any(
        isinstance(item, tuple) and number in item for reader in readers for item in reader.inputs.values()
    )
    if uses - {"indices"} or many or number in program.main.outputs:
        yield "narrowed", f"a computed int32 is cut to {step.outputs[0].dtype}"


def _clip(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """From iOS 17 on the lower bound must be the smaller one (crbug.com/421927615)."""
    low, high = (program.constants.get(number) for number in _ids(step, "alpha", "beta"))
    if low is not None and high is not None and float(low) >= float(high):
        yield "clip_bounds", f"clip from {float(low):g} to {float(high):g}"


def _ids(step: Step, *names: str) -> list[int]:
    found = [step.inputs.get(name) for name in names]
    return [number if isinstance(number, int) else -1 for number in found]


def _gather(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """It crashes (crbug.com/391672283)."""
    x, indices = _input(step, program, "x"), _input(step, program, "indices")
    if x is not None and indices is not None and len(x.shape) == 5 and not indices.shape:
        yield "gather_rank", "one index, without axes, into a tensor of rank 5"


def _reduce(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """Core ML reduces neither a tensor without axes nor over none."""
    x, axes = _input(step, program, "x"), _numbers(step, program, "axes")
    if (x is not None and not x.shape) or (axes is not None and not axes):
        yield "reduce_nothing", "a reduction of rank 0 or over no axis"


def _gru(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """Both are marked as failing in the op tests that coremltools ships."""
    value, after = _input(step, program, "x"), _numbers(step, program, "reset_after")
    if value is not None and value.shape[1] != 1:
        yield "gru_batch", "with a batch above one all but the first sample are zeros"
    if after is not None and any(after):
        yield "gru_reset_after", "Core ML does not compute what reset_after says"


def _pool(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """Marked as wrong in the op tests that coremltools ships."""
    value = _input(step, program, "x")
    if value is not None and len(value.shape) == 3 and _text(step, program, "pad_type") == "same_lower":
        yield "pool_same_lower", "one spatial axis with same_lower padding gives a wrong result"


def _slice(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """Marked as failing in the op tests that coremltools ships."""
    strides, ends = _numbers(step, program, "stride"), _numbers(step, program, "end")
    if strides is None or ends is None:
        return
    masks = _numbers(step, program, "end_mask") or (0,) * len(ends)
    if any(s < 0 and not m and e < 0 for s, e, m in zip(strides, ends, masks, strict=True)):
        yield "slice_backwards", "a negative stride to a negative end"


def _squeeze(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    value, axes = _input(step, program, "x"), _numbers(step, program, "axes")
    if value is None or axes is None:
        return
    if any(value.shape[axis] not in (1, None) for axis in axes):
        yield "squeeze_size", "an axis that is not one"


def _suppression(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """Marked as failing in the op tests that coremltools ships."""
    value = _input(step, program, "boxes")
    if value is not None and value.dtype == "fp16":
        yield "suppression_fp16", "non-maximum suppression in fp16 gives a wrong result"


def _norm(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """A variance of nothing: the epsilon must be what keeps it from zero."""
    number = step.inputs.get("epsilon")
    epsilon = program.constants.get(number) if isinstance(number, int) else None
    value = _input(step, program, "x")
    if (
        epsilon is not None
        and value is not None
        and value.dtype == "fp16"
        and float(np.float16(epsilon)) == 0.0
    ):
        yield "epsilon_lost", f"an epsilon of {float(epsilon):g} is zero in fp16"


def _layer_norm(step: Step, program: Program) -> Iterator[tuple[str, str]]:
    """Other axes than neighbours in order crash the runtime (crbug.com/391423301)."""
    axes = _numbers(step, program, "axes")
    if axes is not None and list(axes) != list(range(axes[0], axes[0] + len(axes)) if axes else [None]):
        yield "norm_axes", f"layer_norm over the axes {axes}"
    yield from _norm(step, program)


_REDUCTIONS = (
    *("argmax", "argmin", "l1_norm", "l2_norm", "log_sum", "log_sum_exp", "max", "mean", "min", "prod"),
    *("sum", "sum_square"),
)
_RULES: dict[str, _Rule] = {
    **dict.fromkeys((f"reduce_{name}" for name in _REDUCTIONS), _reduce),
    "avg_pool": _pool,
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": _clip,
    "conv_transpose": _transposed,
    "gather": _gather,
    "gru": _gru,
    "instance_norm": _norm,
    "l2_norm": _norm,
    "l2_pool": _pool,
    "layer_norm": _layer_norm,
    "linear": _whole_product,
    "matmul": _whole_product,
    "max_pool": _pool,
    "non_maximum_suppression": _suppression,
    "pad": _pad,
    "slice_by_index": _slice,
    "squeeze": _squeeze,
}
