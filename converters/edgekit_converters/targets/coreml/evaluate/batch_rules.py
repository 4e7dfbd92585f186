"""How each op treats the sample axis: the table that `batching` follows."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from edgekit_converters.targets.coreml.evaluate.batch_facts import Facts, NotBatchableError, Rule
from edgekit_converters.targets.coreml.evaluate.kernels.registry import axes_of, whole


def _elementwise(facts: Facts) -> int:
    """Broadcast from the end: every input has its sample axis at the same place, or one element there."""
    rank, found = len(facts.out()), set()
    for item in facts.step.inputs.values():
        number = item if isinstance(item, int) else -1
        if number in facts.batched:
            found.add(facts.batched[number] - len(facts.program.values[number].shape) + rank)
    if len(found) != 1:
        raise NotBatchableError(f"{facts.step.kind}: the sample axis is at {sorted(found)}")
    return found.pop()


def _images(facts: Facts) -> int:
    """Ops over (samples, channels, …) that treat the first axis as a batch."""
    if facts.only("x") != 0:
        raise NotBatchableError(f"{facts.step.kind}: the first axis is not the sample")
    return 0


def _kept(facts: Facts, touched: Any, name: str = "x") -> int:
    """The sample axis stays where it is, since `touched` does not contain it."""
    at = facts.only(name)
    if at in axes_of(touched, len(facts.shape(name))):
        raise NotBatchableError(f"{facts.step.kind}: works along the samples")
    return at


def _along(parameter: str) -> Rule:
    """An op along the axes that `parameter` names; all of them when it is not given."""
    return lambda facts: _kept(facts, facts.constant(parameter))


def _reduced(parameter: str) -> Rule:
    """An op that removes the axes that `parameter` names, unless it keeps them as one."""

    def rule(facts: Facts) -> int:
        axes = axes_of(facts.constant(parameter), len(facts.shape("x")))
        at = _kept(facts, axes)
        return at if bool(facts.constant("keep_dims")) else at - sum(axis < at for axis in axes)

    return rule


def _reshape(facts: Facts) -> int:
    """The elements before the sample axis must be as many as before."""
    at, old, new = facts.only("x"), facts.shape("x"), facts.out()
    before = prod(old[:at])
    for place, size in enumerate(new):
        if size == 1 and prod(new[:place]) == before and place >= min(at, 1):
            facts.changed["shape"] = np.array([*new[:place], -1, *new[place + 1 :]], np.int32)
            return place
    raise NotBatchableError(f"reshape of {old} to {new} loses the sample axis")


def _transpose(facts: Facts) -> int:
    """The sample axis moves."""
    at = facts.only("x")
    return axes_of(facts.constant("perm"), len(facts.shape("x"))).index(at)


def _expand_dims(facts: Facts) -> int:
    """New axes before the sample axis push it back."""
    at, new = facts.only("x"), set(axes_of(facts.constant("axes"), len(facts.out())))
    old = [place for place in range(len(facts.out())) if place not in new]
    return old[at]


def _squeeze(facts: Facts) -> int:
    """Named axes go; without names all axes of one would, the samples' too."""
    if facts.constant("axes") is None:
        raise NotBatchableError("squeeze without axes")
    axes = axes_of(facts.constant("axes"), len(facts.shape("x")))
    return _kept(facts, axes) - sum(axis < facts.only("x") for axis in axes)


def _joined(facts: Facts) -> int:
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


def _matmul(facts: Facts) -> int:
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


def _whole_vector(facts: Facts, name: str) -> list[int]:
    """A constant vector of whole numbers as a list."""
    return list(whole(facts.constant(name)))


def _attention(facts: Facts) -> int:
    """Query, key, value and mask broadcast over all but the last two axes."""
    at = _elementwise(facts)
    if at >= len(facts.out()) - 2:
        raise NotBatchableError("attention over the samples")
    return at


def _linear(facts: Facts) -> int:
    return _kept(facts, [-1])


def _quantized(facts: Facts) -> int:
    axis, at = facts.constant("axis"), facts.only("input")
    if np.size(facts.constant("scale")) > 1 and int(axis) % len(facts.shape("input")) == at:
        raise NotBatchableError("quantize along the samples")
    return at


def _slice_by_index(facts: Facts) -> int:
    """The sample axis is taken whole, whatever its size."""
    at, rank = facts.only("x"), len(facts.shape("x"))
    masks = {
        name: np.array(np.zeros(rank) if facts.constant(name) is None else facts.constant(name), np.bool_)
        for name in ("begin_mask", "end_mask", "squeeze_mask")
    }
    strides = [1] * rank if facts.constant("stride") is None else _whole_vector(facts, "stride")
    begins = masks["begin_mask"][at] or _whole_vector(facts, "begin")[at] in (0, -1)
    ends = masks["end_mask"][at] or _whole_vector(facts, "end")[at] >= 1
    if masks["squeeze_mask"][at] or strides[at] != 1 or not (begins and ends):
        raise NotBatchableError("slice_by_index of the samples")
    masks["begin_mask"][at] = masks["end_mask"][at] = True
    facts.changed.update(begin_mask=masks["begin_mask"], end_mask=masks["end_mask"])
    return at - int(masks["squeeze_mask"][:at].sum())


def _slice_by_size(facts: Facts) -> int:
    at = facts.only("x")
    begin, size = _whole_vector(facts, "begin"), _whole_vector(facts, "size")
    if begin[at] not in (0, -1) or size[at] not in (1, -1):
        raise NotBatchableError("slice_by_size of the samples")
    begin[at], size[at] = 0, -1
    facts.changed.update(begin=np.array(begin, np.int32), size=np.array(size, np.int32))
    return at


def _pad(facts: Facts) -> int:
    at, pairs = facts.only("x"), _whole_vector(facts, "pad")
    first = len(facts.shape("x")) - len(pairs) // 2
    if at >= first and any(pairs[2 * (at - first) : 2 * (at - first) + 2]):
        raise NotBatchableError("pad of the samples")
    return at


def _tile(facts: Facts) -> int:
    at = facts.only("x")
    if _whole_vector(facts, "reps")[at] != 1:
        raise NotBatchableError("tile of the samples")
    return at


def _gather(facts: Facts) -> int:
    """Rows of a table by indices of the sample, or the same elements of each sample."""
    if facts.constant("batch_dims") is not None and int(facts.constant("batch_dims")):
        raise NotBatchableError("gather with batch axes")
    axis = int(facts.constant("axis")) % len(facts.shape("x"))
    if facts.axis("x") is None:
        return axis + facts.only("indices")
    at = _kept(facts, [axis])
    return at if at < axis else at + len(facts.shape("indices")) - 1


def _one_hot(facts: Facts) -> int:
    at = facts.only("indices")
    return at + int(int(facts.constant("axis")) % len(facts.out()) <= at)


def _recurrent(facts: Facts) -> tuple[int, ...]:
    """(time, batch, features) and (batch, features). A state that is the same for all broadcasts."""
    if facts.only("x", "initial_h", "initial_c") != 1:
        raise NotBatchableError(f"{facts.step.kind}: the second axis is not the sample")
    if any(facts.axis(name) not in (None, 0) for name in ("initial_h", "initial_c")):
        raise NotBatchableError(f"{facts.step.kind}: a state with its samples elsewhere")
    return (1, *(0 for _ in facts.step.outputs[1:]))


def _flatten(facts: Facts) -> int:
    axis = int(facts.constant("axis"))
    if facts.only("x") != 0 or axis % len(facts.shape("x")) != 1:
        raise NotBatchableError("flatten2d joins the samples with another axis")
    return 0


def _windows(facts: Facts) -> int:
    axis = int(facts.constant("axis")) % len(facts.shape("x"))
    at = _kept(facts, [axis])
    return at + int(at > axis)


def _spatial(facts: Facts, count: int) -> int:
    """Ops on the last `count` axes."""
    return _kept(facts, axes_of(range(-count, 0), len(facts.shape("x"))))


def _resize(facts: Facts) -> int:
    return _spatial(facts, int(facts.constant("resized_dims")))


def _classify(facts: Facts) -> tuple[int, ...]:
    if facts.only("probabilities") != 0:
        raise NotBatchableError("classify: the first axis is not the sample")
    return (0, 0)


def _reference(facts: Facts) -> int:
    return facts.only("ref_tensor")


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("abs", "acos", "add", "asin", "atan", "atanh", "cast", "ceil", "clamped_relu", "clip", "cos"),
            *("cosh", "elu", "equal", "erf", "exp", "exp2", "floor", "floor_div", "gelu", "greater"),
            *("greater_equal", "identity", "inverse", "leaky_relu", "less", "less_equal", "log"),
            *("linear_activation", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum"),
            *("minimum", "mod", "mul", "not_equal", "pow", "real_div", "relu", "relu6", "round", "rsqrt"),
            *("scaled_tanh", "select", "sigmoid", "sigmoid_hard", "sign", "silu", "sin", "sinh", "softplus"),
            *("softsign", "sqrt", "square", "sub", "tan", "tanh", "threshold", "thresholded_relu"),
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        (
            *("avg_pool", "batch_norm", "conv", "conv_transpose", "depth_to_space", "instance_norm"),
            *("l2_pool", "local_response_norm", "max_pool", "pixel_shuffle", "pixel_unshuffle", "prelu"),
            *("softplus_parametric", "space_to_depth"),
        ),
        _images,
    ),
    **dict.fromkeys(
        (
            *("reduce_l1_norm", "reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp", "reduce_max"),
            *("reduce_mean", "reduce_min", "reduce_prod", "reduce_sum", "reduce_sum_square"),
        ),
        _reduced("axes"),
    ),
    **dict.fromkeys(("reduce_argmax", "reduce_argmin"), _reduced("axis")),
    **dict.fromkeys(("argsort", "cumsum", "softmax", "split", "topk"), _along("axis")),
    **dict.fromkeys(("layer_norm", "reverse"), _along("axes")),
    **dict.fromkeys(
        ("crop", "resize_bilinear", "resize_nearest_neighbor", "upsample_bilinear", "band_part"),
        partial(_spatial, count=2),
    ),
    **dict.fromkeys(("gru", "lstm", "rnn"), _recurrent),
    **dict.fromkeys(("quantize", "dequantize"), _quantized),
    **dict.fromkeys(("concat", "stack"), _joined),
    "classify": _classify,
    "expand_dims": _expand_dims,
    "fill_like": _reference,
    "flatten2d": _flatten,
    "gather": _gather,
    "l2_norm": partial(_spatial, count=3),
    "linear": _linear,
    "matmul": _matmul,
    "one_hot": _one_hot,
    "pad": _pad,
    "reshape": _reshape,
    "resize": _resize,
    "scaled_dot_product_attention": _attention,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "sliding_windows": _windows,
    "squeeze": _squeeze,
    "tile": _tile,
    "transpose": _transpose,
    "upsample_nearest_neighbor": partial(_spatial, count=2),
}
