"""Reductions and what runs along an axis: Reduce*, ArgMax, ArgMin, Hardmax, CumSum.

Facts by trial (ai_edge_litert 2.3.0): SUM, REDUCE_PROD, _MAX, _MIN take FLOAT, INT32, INT64, MEAN is used
with FLOAT only; bool has REDUCE_ANY and _ALL; XNNPACK fails on more than 6 axes; no axes change nothing; an
empty set gives 0, 1, -inf, inf. ARG_MAX takes FLOAT, INT32, INT8, UINT8 and gives the first of equals.
CUMSUM takes FLOAT, INT32, INT64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgekit_converters.hub.nodes import attr_int, axis_of
from edgekit_converters.targets.tflite.lower import layout, parts
from edgekit_converters.targets.tflite.lower.context import Context
from edgekit_converters.targets.tflite.lower.integers import halved
from edgekit_converters.targets.tflite.lower.numbers import FLOATS, NUMBERS, D, widened
from edgekit_converters.targets.tflite.lower.parts import given, like, optional
from edgekit_converters.targets.tflite.lower.registry import Quantized, lowers
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor, known

_PLAIN = {
    "ReduceSum": "SUM",
    "ReduceProd": "REDUCE_PROD",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
}
_BOOL = {"ReduceMax": "REDUCE_ANY", "ReduceMin": "REDUCE_ALL"}
_EXTREMES = NUMBERS | {D.INT8, D.UINT8}
_MOST_AXES = 6
_COMPARED = frozenset({D.FLOAT, D.INT32})
Reduce = Callable[[str, Tensor], Tensor]
"""Apply a kernel over the node's axes."""


@lowers("ReduceMean", quantized=Quantized.FREE, dtypes=("INT8", "INT16"))
def reduce_mean(ctx: Context, node: ir.Node) -> None:
    """Mean; of integers the sum divided, cut towards zero as onnxruntime does."""
    kinds = FLOATS if ctx.dtype(given(node, 0)) in (D.FLOAT, D.FLOAT16) else frozenset[ir.DataType]()
    _reduce(ctx, node, kinds, lambda reduce, x: reduce("MEAN", x))


@lowers("ReduceMax", "ReduceMin", quantized=Quantized.SAME)
def reduce_extreme(ctx: Context, node: ir.Node) -> None:
    """One kernel; of bools any or all."""
    reduce_plain(ctx, node)


@lowers("ReduceSum", "ReduceProd")
def reduce_plain(ctx: Context, node: ir.Node) -> None:
    """One kernel."""
    if ctx.dtype(given(node, 0)) is D.BOOL and node.op_type in _BOOL:
        return _reduce(ctx, node, frozenset({D.BOOL}), lambda reduce, x: reduce(_BOOL[node.op_type], x))
    if ctx.dtype(given(node, 0)) in (D.DOUBLE, D.UINT64):
        return _reduce_halves(ctx, node)
    kinds = _EXTREMES if node.op_type in _BOOL else NUMBERS
    return _reduce(ctx, node, kinds, lambda reduce, x: reduce(_PLAIN[node.op_type], x))


@lowers("ReduceL1")
def reduce_l1(ctx: Context, node: ir.Node) -> None:
    """Sum of absolute values."""
    _reduce(ctx, node, _COMPARED, lambda reduce, x: reduce("SUM", ctx.unary("ABS", x)))


@lowers("ReduceL2")
def reduce_l2(ctx: Context, node: ir.Node) -> None:
    """Root of the sum of squares."""
    _reduce(ctx, node, FLOATS, lambda reduce, x: ctx.unary("SQRT", reduce("SUM", ctx.unary("SQUARE", x))))


@lowers("ReduceSumSquare")
def reduce_sum_square(ctx: Context, node: ir.Node) -> None:
    """Sum of squares."""
    _reduce(ctx, node, NUMBERS, lambda reduce, x: reduce("SUM", parts.times(ctx, x, x)))


@lowers("ReduceLogSum")
def reduce_log_sum(ctx: Context, node: ir.Node) -> None:
    """Logarithm of the sum."""
    _reduce(ctx, node, FLOATS, lambda reduce, x: ctx.unary("LOG", reduce("SUM", x)))


@lowers("ReduceLogSumExp")
def reduce_log_sum_exp(ctx: Context, node: ir.Node) -> None:
    """Logarithm of the sum of exponentials, less the largest so that nothing overflows."""
    tensor = ctx.tensor(given(node, 0))
    x, numbers = widened(ctx, tensor, FLOATS), _axes(ctx, node, tensor.rank)
    if numbers == [] and attr_int(node, "noop_with_empty_axes"):
        return ctx.set(node.outputs[0], tensor)
    axes = ctx.ints(numbers) if numbers is not None else parts.whole(ctx, given(node, 1))
    kept = [1 if numbers and axis in numbers else size for axis, size in enumerate(x.shape)]
    spec = x.spec(kept if numbers is not None else (None,) * x.rank)
    top = ctx.emit("REDUCE_MAX", [x, axes], spec, keepDims=True)
    bounds = like(ctx, x, -3e38), like(ctx, x, 3e38)
    top = ctx.binary("MINIMUM", ctx.binary("MAXIMUM", top, bounds[0]), bounds[1])
    powers = ctx.unary("EXP", ctx.emit("SUB", [x, top], x.spec()))
    total = ctx.emit("SUM", [powers, axes], spec, keepDims=True)
    result = parts.plus(ctx, ctx.unary("LOG", total), top)
    if not attr_int(node, "keepdims", 1):
        # The axes have one element left: the largest of it is it.
        gone = len(numbers) if numbers is not None else parts.length(ctx, given(node, 1))
        left = [size for axis, size in enumerate(kept) if numbers and axis not in numbers]
        rest = result.spec(left if numbers is not None else (None,) * (x.rank - gone))
        result = ctx.emit("REDUCE_MAX", [result, axes], rest, keepDims=False)
    return ctx.set(node.outputs[0], ctx.cast(result, tensor.dtype))


def _reduce_halves(ctx: Context, node: ir.Node) -> None:
    tensor = ctx.tensor(given(node, 0))
    axes = _axes(ctx, node, tensor.rank)
    if axes is None:
        raise parts.refuse(node, "over computed axes", "requires_constant_input")
    op = _PLAIN[node.op_type].replace("REDUCE_PROD", "MUL").replace("SUM", "ADD")
    op = op.replace("REDUCE_MAX", "MAXIMUM").replace("REDUCE_MIN", "MINIMUM")
    made = halved(ctx, op, tensor, axes) if axes else tensor
    if not attr_int(node, "keepdims", 1):
        made = ctx.reshape(made, [size for axis, size in enumerate(tensor.shape) if axis not in axes])
    ctx.set(node.outputs[0], made)


def _reduce(
    ctx: Context, node: ir.Node, kinds: frozenset[ir.DataType], compute: Callable[[Reduce, Tensor], Tensor]
) -> None:
    """Output 0 is what `compute` makes of input 0 and of a function that reduces over the node's axes."""
    value = given(node, 0)
    axes = _axes(ctx, node, ctx.rank(value))
    keep = bool(attr_int(node, "keepdims", 1))
    if axes is None:
        return _computed_axes(ctx, node, kinds, compute)
    if not axes and attr_int(node, "noop_with_empty_axes"):
        tensor, perm = ctx.any_layout(value)
        result = compute(lambda op, x: x, widened(ctx, tensor, kinds))
        return ctx.set(node.outputs[0], ctx.cast(result, tensor.dtype), perm)
    tensor, perm = ctx.any_layout(value)
    if tensor.rank == 0:
        tensor, perm, axes, keep = ctx.reshape(tensor, (1,)), (0,), [0], False
    wide = widened(ctx, tensor, kinds)
    places = sorted(perm.index(axis) for axis in axes)
    left = perm if keep else layout.without(perm, axes)

    def reduce(op: str, x: Tensor) -> Tensor:
        if x.quant is not None:
            return ctx.emit(op, [x, ctx.ints(places)], ctx.output(node, left), keepDims=keep)
        return _endless(ctx, op, x, _flat_reduced(ctx, op, x, places, keep))

    result = compute(reduce, wide)
    return ctx.set(node.outputs[0], ctx.cast(result, tensor.dtype) if tensor.quant is None else result, left)


def _flat_reduced(ctx: Context, op: str, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    """A tensor of more axes than kernels take is reduced as one of two."""
    sizes = known(x.shape)
    if x.rank <= _MOST_AXES or sizes is None or 0 in sizes:
        return parts.reduced(ctx, op, x, axes, keep=keep)
    kept = [axis for axis in range(x.rank) if axis not in axes]
    rows = math.prod(sizes[axis] for axis in kept)
    flat = ctx.reshape(ctx.transpose(x, (*kept, *axes)), (rows, math.prod(sizes) // rows))
    made = parts.reduced(ctx, op, flat, [1], keep=False)
    return ctx.reshape(
        made, [1 if axis in axes else size for axis, size in enumerate(sizes) if keep or axis in kept]
    )


def _endless(ctx: Context, op: str, x: Tensor, made: Tensor) -> Tensor:
    """Of no floats the kernels give the last finite number where ONNX wants infinity."""
    if x.dtype is not D.FLOAT or 0 not in x.shape or op not in ("REDUCE_MAX", "REDUCE_MIN"):
        return made
    return parts.plus(ctx, made, -math.inf if op == "REDUCE_MAX" else math.inf)


def _axes(ctx: Context, node: ir.Node, rank: int) -> list[int] | None:
    """Axes from the front; all of them when none are given and that is not "do nothing"; None: computed."""
    value = optional(node, 1)
    numbers = [] if value is None else parts.numbers_of(ctx, value)
    if numbers is None:
        # A computed vector of no axes is as good as none given.
        numbers = [] if parts.length(ctx, given(node, 1)) == 0 else None
    if numbers is None:
        return None
    if not numbers and not attr_int(node, "noop_with_empty_axes"):
        return list(range(rank))
    return [parts.front(axis, rank) for axis in numbers]


def _computed_axes(
    ctx: Context, node: ir.Node, kinds: frozenset[ir.DataType], compute: Callable[[Reduce, Tensor], Tensor]
) -> None:
    tensor, keep = ctx.tensor(given(node, 0)), bool(attr_int(node, "keepdims", 1))
    axes = parts.vector(ctx, parts.whole(ctx, given(node, 1)))
    rank = tensor.rank if keep else tensor.rank - parts.length(ctx, given(node, 1))

    def reduce(op: str, x: Tensor) -> Tensor:
        made = ctx.emit(op, [x, axes], x.spec((None,) * rank), keepDims=keep)
        return _endless(ctx, op, x, made)

    result = compute(reduce, widened(ctx, tensor, kinds))
    ctx.set(node.outputs[0], ctx.cast(result, tensor.dtype))


@lowers("ArgMax", "ArgMin")
def arg(ctx: Context, node: ir.Node) -> None:
    """The first place of the largest or smallest, or the last one (`select_last_index`)."""
    tensor = widened(ctx, ctx.tensor(given(node, 0)), _COMPARED)
    axis = axis_of(node, tensor.rank)
    found = _arg(ctx, node, tensor, axis)
    if attr_int(node, "keepdims", 1):
        found = ctx.emit("EXPAND_DIMS", [found, ctx.ints(axis)], found.spec(_kept(tensor, axis, 1)))
    ctx.set(node.outputs[0], ctx.cast(found, D.INT64))


def _arg(ctx: Context, node: ir.Node, tensor: Tensor, axis: int) -> Tensor:
    op = "ARG_MAX" if node.op_type == "ArgMax" else "ARG_MIN"
    spec = Spec(_kept(tensor, axis, None), D.INT32)
    if not attr_int(node, "select_last_index"):
        return ctx.emit(op, [tensor, ctx.ints(axis)], spec, outputType=2)
    backwards = ctx.emit("REVERSE_V2", [tensor, ctx.ints([axis])], tensor.spec())
    found = ctx.emit(op, [backwards, ctx.ints(axis)], spec, outputType=2)
    last = parts.minus(ctx, parts.scalar(ctx, parts.size(ctx, tensor, axis)), 1)
    return parts.minus(ctx, last, found)


def _kept(tensor: Tensor, axis: int, size: int | None) -> tuple[int | None, ...]:
    """The shape with `axis` made `size`, or left out."""
    return (*tensor.shape[:axis], *([] if size is None else [size]), *tensor.shape[axis + 1 :])


@lowers("Hardmax")
def hardmax(ctx: Context, node: ir.Node) -> None:
    """1 at the first largest along the axis, else 0."""
    tensor = ctx.tensor(given(node, 0))
    x = widened(ctx, tensor, FLOATS)
    axis = axis_of(node, x.rank, default=-1)
    spec = Spec(_kept(x, axis, None), D.INT32)
    found = ctx.emit("ARG_MAX", [x, ctx.ints(axis)], spec, outputType=2)
    found = ctx.emit("EXPAND_DIMS", [found, ctx.ints(axis)], found.spec(_kept(x, axis, 1)))
    here = parts.compare(ctx, "EQUAL", found, parts.iota(ctx, x, axis))
    ctx.set(node.outputs[0], ctx.cast(here, tensor.dtype))


@lowers("CumSum")
def cum_sum(ctx: Context, node: ir.Node) -> None:
    """Sums up to each place along an axis that may be computed."""
    tensor = ctx.tensor(given(node, 0))
    numbers = parts.numbers_of(ctx, given(node, 1))
    axis = (
        ctx.ints(numbers[0]) if numbers is not None else parts.scalar(ctx, parts.whole(ctx, given(node, 1)))
    )
    x = widened(ctx, tensor, NUMBERS)
    exclusive, reverse = bool(attr_int(node, "exclusive")), bool(attr_int(node, "reverse"))
    made = ctx.emit("CUMSUM", [x, axis], x.spec(), exclusive=exclusive, reverse=reverse)
    ctx.set(node.outputs[0], ctx.cast(made, tensor.dtype))
