"""Axis orders of reshaped tensors, and what happens to nodes that no kernel does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower import lower, regroup
from edgekit_converters.targets.tflite.lower.tensors import Shape
from tests.converters.tflite_ops import agrees, floats, lowered, parsed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, 12, 5), (2, 3, 4, 5)),
        ((2, 3, 4, 5), (6, 20)),
        ((1, 4, 1, 6), (4, 6)),
        ((4, 6), (1, 4, 1, 6, 1)),
        ((2, 3, 4), (3, 2, 4)),
        ((6,), (2, 3)),
        ((1, 1), (1,)),
    ],
)
def test_a_reshape_in_any_held_order_gives_the_same_elements(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    value = np.arange(np.prod(before)).reshape(before)
    found = regroup.groups(before, after)
    assert found is not None
    carried = 0
    for perm in itertools.permutations(range(len(before))):
        orders = regroup.carried(perm, found)
        if orders is None:
            continue
        held = value.transpose(orders[0])
        made = held.reshape([after[axis] for axis in orders[1]])
        np.testing.assert_array_equal(made, value.reshape(after).transpose(orders[1]))
        carried += 1
    assert carried


@pytest.mark.parametrize(
    ("before", "after"), [((None, None), (None, None)), ((None, 4), (4, 2)), ((2, 3), (7,)), ((0, 3), (3, 0))]
)
def test_a_reshape_that_cannot_be_followed_is_not(before: Shape, after: Shape) -> None:
    assert regroup.groups(before, after) is None


DECLINED = {
    "a computed scale": "g (float[1,1,3,4] x, float[4] s) => (float[1,1,6,8] y) { y = Resize(x, , s) }",
    "places": "g (float[1,2,4,4] x) => (float[] y, int64[] i) { y, i = MaxPool<kernel_shape=[2,2]>(x) }",
    "sums of doubles": "g (double[3,4] x, int64 a) => (double[] y) { y = CumSum(x, a) }",
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_a_kernel_does_not_do_is_decomposed(name: str) -> None:
    graph = DECLINED[name]
    with pytest.raises(Refusal):
        lower(hub.canonical(parsed(graph)).model)
    shape = [int(size) for size in graph.split("[")[1].split("]")[0].split(",")]
    x = floats(*shape)
    feed = {"x": x.astype(np.float64) if "double" in graph else x}
    feed |= {"s": np.array([1, 1, 2, 2], np.float32)} if "float[4] s" in graph else {}
    agrees(graph, {**feed, "a": np.array(1)} if "int64 a" in graph else feed)


def test_what_nothing_can_decompose_keeps_its_first_reason() -> None:
    with pytest.raises(Refusal) as found:
        lowered("g (double[3] x) => (double[3] y) { y = Exp(x) }")
    assert found.value.code == "unsupported_type"


def test_values_that_keep_their_axis_order_are_not_moved_by_elementwise_ops() -> None:
    graph = "g (float[N,4,6,6] x, float[4,1,1] s) => (float[] y) { a = MaxPool<kernel_shape=[2,2]>(x)"
    body = " b = Mul(a, s) c = Sigmoid(b) d = Concat<axis=1>(c, b) e = Clip(d)"
    body += " y = MaxPool<kernel_shape=[2,2]>(e) }"
    feeds = [{"x": floats(count, 4, 6, 6), "s": floats(4, 1, 1)} for count in (1, 3)]
    made = agrees(graph + body, *feeds)
    assert made.facts["transposes"] == 2


def test_a_product_takes_its_bias_and_leaves_the_axes_as_they_are_held() -> None:
    numbers = "<float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[1,1,3] b = {0.5,-1,2}>"
    graph = f"g (float[2,5,4] x) => (float[] y) {numbers} {{ t = Transpose<perm=[1,0,2]>(x) m = MatMul(t, w)"
    made = agrees(
        f"{graph} a = Add(b, m) r = Relu(a) y = Transpose<perm=[1,0,2]>(r) }}", {"x": floats(2, 5, 4)}
    )
    assert made.facts["ops"] == {"FULLY_CONNECTED": 1}


def test_a_bias_that_others_read_too_is_added_by_itself() -> None:
    numbers = "<float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {0.5,-1,2}>"
    graph = f"g (float[2,4] x) => (float[] y, float[] m) {numbers} {{ m = MatMul(x, w) y = Add(m, b) }}"
    agrees(graph, {"x": floats(2, 4)}, rtol=1e-5)


AFTER_A_POOL = [
    "Split<axis=1,num_outputs=2>(a)",
    "Slice(a, one, three, axes)",
    "Slice(a, three, one, axes, back)",
    "Pad(a, around)",
    'Pad<mode="edge">(a, around)',
    "ReduceMean(a, axes)",
    "ReduceMean<keepdims=0>(a, axes)",
    "ReduceMax<keepdims=0>(a, spatial)",
    "ReduceSum<keepdims=1>(a, spatial)",
    "ReduceL2(a)",
    "Softmax<axis=1>(a)",
    "LogSoftmax<axis=3>(a)",
    "Hardmax<axis=1>(a)",
    "Gather<axis=1>(a, three)",
    "Add(a, row)",
    "Mul(row, a)",
    "Sub(a, column)",
    "Max(a, channel, row)",
    "PRelu(a, channel)",
    "PRelu(a, row)",
    "Where(mask, a, channel)",
    "Concat<axis=1>(a, x)",
    "Concat<axis=3>(x, a, a)",
    "Expand(a, five)",
    "Tile(a, twice)",
    "Unsqueeze(a, one)",
    "CumSum(a, axis)",
    "Clip(a, low)",
    "Pow(a, two)",
    "Trilu(a)",
    "DepthToSpace<blocksize=2>(a)",
    "Transpose<perm=[0,3,1,2]>(a)",
    "MatMul(a, square)",
    "Flatten<axis=2>(a)",
]
_NUMBERS = ", ".join(
    [
        "int64[1] one = {1}, int64[1] three = {3}, int64[1] axes = {1}, int64[1] back = {-1}",
        "int64[8] around = {0,1,2,0,0,0,1,3}, int64[2] spatial = {2,3}, float[6] row = {1,2,3,-4,5,6}",
        "float[5,1] column = {1,2,3,4,5}, float[4,1,1] channel = {0.5,-1,2,0.1}",
        "bool[5,1] mask = {1,0,0,1,1}",
        "int64[5] five = {2,1,4,1,6}, int64[4] twice = {1,2,1,2}, int64 axis = {1}, float low = {0.5}",
        f"float two = {{2.0}}, float[6,6] square = {{{','.join(str(number % 7) for number in range(36))}}}",
    ]
)


@pytest.mark.parametrize("computed", AFTER_A_POOL)
def test_an_op_on_what_is_held_channels_last(computed: str) -> None:
    outputs = "y, w" if computed.startswith("Split") else "y"
    graph = f"g (float[2,4,5,6] x) => (float[] y) <{_NUMBERS}> {{ a = MaxPool<kernel_shape=[1,1]>(x)"
    agrees(f"{graph} {outputs} = {computed} }}", {"x": floats(2, 4, 5, 6)}, rtol=1e-5, atol=1e-5)
    if "Trilu" not in computed:
        free = graph.replace("[2,4,5,6] x", "[N,4,5,6] x")
        feeds = [{"x": floats(count, 4, 5, 6, seed=count)} for count in (1, 3)]
        agrees(f"{free} {outputs} = {computed} }}", *feeds, rtol=1e-5, atol=1e-5)
