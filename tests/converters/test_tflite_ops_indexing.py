"""Indexing, reductions, products and sorting, lowered and run: constant, computed, and over free sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.package import Requirements, Tensor
from edgekit_converters.targets.tflite.runner import LiteRtSession
from edgekit_converters.values import Built
from tests.converters.tflite_ops import agrees, floats, lowered, whole

FREE = ({"x": floats(2, 3, 4)}, {"x": floats(5, 3, 2, seed=1)}, {"x": floats(1, 3, 1, seed=2)})
"""Feeds for float[N,3,M]."""
IN = "float[N,3,M] x"


def ints(*numbers: int) -> Any:
    """An int64 vector."""
    return np.array(numbers, np.int64)


@pytest.mark.parametrize("kind", ["float", "double", "uint16", "uint64", "bool", "int8"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_counts_negative_places_from_the_end(kind: str, axis: int) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    graph = f"g ({kind}[3,4,5] x, int64[2,2] i) => ({kind}[] y, {kind}[] z) <int64 k = {{-1}}>"
    body = f"{{ y = Gather<axis={axis}>(x, i) z = Gather<axis={axis}>(x, k) }}"
    agrees(
        f"{graph} {body}", {"x": whole(3, 4, 5, low=0, dtype=dtype), "i": ints(0, -1, 2, -3).reshape(2, 2)}
    )


def test_gather_along_a_free_size() -> None:
    graph = f"g ({IN}, int32[2] i) => (float[] y, float[] z) <int64[3] k = {{-1, 0, -1}}>"
    feeds = [{**feed, "i": np.array([-1, 0], np.int32)} for feed in FREE]
    agrees(f"{graph} {{ y = Gather<axis=2>(x, i) z = Gather<axis=0>(x, k) }}", *feeds)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements_smaller_than_the_data(axis: int) -> None:
    indices = whole(2, 3, 2, low=-2, high=2)
    graph = f"g (float[3,4,5] x, int64[2,3,2] i) => (float[] y) {{ y = GatherElements<axis={axis}>(x, i) }}"
    agrees(graph, {"x": floats(3, 4, 5), "i": indices})


@pytest.mark.parametrize(
    ("batch", "shape"), [(0, (2, 2)), (0, (4, 1, 3)), (1, (3, 2)), (1, (3, 2, 1)), (2, (3, 4, 1))]
)
def test_gather_nd_with_batches(batch: int, shape: tuple[int, ...]) -> None:
    sizes = ",".join(map(str, shape))
    graph = (
        f"g (float[3,4,5] x, int64[{sizes}] i) => (float[] y) {{ y = GatherND<batch_dims={batch}>(x, i) }}"
    )
    agrees(graph, {"x": floats(3, 4, 5), "i": whole(*shape, low=-3, high=3)})


def test_gather_nd_over_free_sizes() -> None:
    graph = f"g ({IN}, int64[2,2] i) => (float[] y) {{ y = GatherND(x, i) }}"
    agrees(graph, *({**feed, "i": ints(-1, 2, 0, -3).reshape(2, 2)} for feed in FREE))


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("kind", ["float", "int32"])
def test_scatter_leaves_what_no_index_names(reduction: str, kind: str) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    x = whole(4, 5, dtype=dtype)
    if kind == "float":
        x[0, 0], x[1, 1] = -np.inf, np.nan
    places = ints(3, -4, 1, 2, 3, 0).reshape(3, 2)
    if reduction != "none":
        places[1] = places[0]
    graph = f"g ({kind}[4,5] x, int64[3,2] i, {kind}[3,2] u) => ({kind}[] y)"
    text = f'{graph} {{ y = ScatterElements<axis=0,reduction="{reduction}">(x, i, u) }}'
    agrees(text, {"x": x, "i": places, "u": whole(3, 2, seed=2, dtype=dtype)})


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("depth", [1, 2])
def test_scatter_nd_of_rows_and_elements(reduction: str, depth: int) -> None:
    indices = ints(0, 2, -1)[:, None] if depth == 1 else ints(0, 2, -1, -1, 1, 0).reshape(3, 2)
    sizes = "3,5" if depth == 1 else "3"
    graph = f"g (float[4,5] x, int64[3,{depth}] i, float[{sizes}] u) => (float[] y)"
    shape = (3, 5) if depth == 1 else (3,)
    text = f'{graph} {{ y = ScatterND<reduction="{reduction}">(x, i, u) }}'
    agrees(text, {"x": floats(4, 5), "i": indices, "u": floats(*shape, seed=1)})


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_and_gather_over_free_sizes(reduction: str) -> None:
    ports = "float[N,M,2] x, int64[2,1] i, float[2,M,2] u, int64[K,M,1] e, int64[2,M,2] c"
    graph = f"g ({ports}) => (float[] y, float[] z, float[] w)"
    body = f'{{ y = ScatterND<reduction="{reduction}">(x, i, u) z = GatherElements<axis=2>(x, e)'
    numbers = "<int64 o = {1}>"
    feeds = []
    for rows, columns in ((3, 4), (5, 1), (2, 6)):
        places = np.stack([np.random.default_rng(0).permutation(columns)] * 2)[..., None].repeat(2, axis=2)
        feed = {
            "x": floats(rows, columns, 2),
            "i": ints(rows - 1, -rows)[:, None],
            "u": floats(2, columns, 2),
        }
        feeds.append({**feed, "e": whole(rows, columns, 1, low=-2, high=2), "c": places})
    tail = f' f = Mul(c, o) w = ScatterElements<axis=1,reduction="{reduction}">(u, f, u) }}'
    agrees(f"{graph} {numbers} {body}{tail}", *feeds)


@pytest.mark.parametrize("kind", ["int64", "double", "bool", "uint8"])
def test_scatter_of_other_types(kind: str) -> None:
    dtype = {"double": "float64"}.get(kind, kind)
    graph = f"g ({kind}[4,2] x, int64[2,1] i, {kind}[2,2] u) => ({kind}[] y) {{ y = ScatterND(x, i, u) }}"
    feed = {"x": whole(4, 2, low=0, dtype=dtype), "u": whole(2, 2, low=0, seed=1, dtype=dtype)}
    agrees(graph, {**feed, "i": ints(3, 0)[:, None]})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_beyond_its_depth_is_off(axis: int) -> None:
    graph = "g (int64[2,3] i, int64 d, float[2] v) => (float[] y)"
    places = ints(0, -1, 5, 3, -4, -9).reshape(2, 3)
    feed = {"i": places, "v": np.array([2, 7], np.float32)}
    agrees(
        f"{graph} {{ y = OneHot<axis={axis}>(i, d, v) }}",
        {**feed, "d": np.array(4)},
        {**feed, "d": np.array(6)},
    )


def test_places_of_what_is_not_zero() -> None:
    graph = "g (float[N,3] x, bool[3] c) => (int64[] y, float[] z, float[] w)"
    body = "{ y = NonZero(x) z = Compress<axis=1>(x, c) w = Compress(x, c) }"
    mask = np.array([True, False, True])
    x = np.array([[0, 1, 0], [2, 0, -3]], np.float32)
    agrees(f"{graph} {body}", {"x": x, "c": mask}, {"x": floats(4, 3), "c": ~mask})


_SUMS = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"]
_LOGS = ["ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"]


@pytest.mark.parametrize("op", [*_SUMS, *_LOGS])
@pytest.mark.parametrize("axes", ["-1", "0, 2", "1, -3, 2", ""])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions_of_free_sizes(op: str, axes: str, keep: int) -> None:
    count = len(axes.split(",")) if axes else 0
    graph = f"g ({IN}) => (float[] y) <int64[{count}] a = {{{axes}}}> {{ p = Abs(x)"
    feeds = FREE[:2]
    agrees(f"{graph} y = {op}<keepdims={keep}>(p, a) }}", *feeds, rtol=1e-5)


@pytest.mark.parametrize("op", [*_SUMS, *_LOGS])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions_over_computed_axes(op: str, keep: int) -> None:
    graph = f"g (float[2,3,4] x, int64[2] a) => (float[] y) {{ p = Abs(x) y = {op}<keepdims={keep}>(p, a) }}"
    x = floats(2, 3, 4)
    agrees(graph, {"x": x, "a": ints(0, -1)}, {"x": x, "a": ints(1, 2)}, rtol=1e-5)


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        *(
            (op, "int32")
            for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean", "ReduceL1")
        ),
        *((op, "int64") for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")),
    ],
)
def test_reductions_of_whole_numbers(op: str, kind: str) -> None:
    graph = f"g ({kind}[4,5] x) => ({kind}[] y) <int64[1] a = {{1}}> {{ y = {op}(x, a) }}"
    agrees(graph, {"x": whole(4, 5, dtype=kind)})


def test_a_sum_of_endless_numbers_in_logarithms() -> None:
    graph = "g (float[3,2] x) => (float[] y) <int64[1] a = {1}> { y = ReduceLogSumExp(x, a) }"
    x = np.array([[-np.inf, -np.inf], [1000, 1000], [-1000, 3]], np.float32)
    agrees(graph, {"x": x})


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("last", [0, 1])
def test_the_first_or_last_of_equals(op: str, axis: int, last: int) -> None:
    graph = f"g (float[N,4] x) => (int64[] y, int64[] z) {{ y = {op}<axis={axis},select_last_index={last}>(x)"
    body = f" z = {op}<axis={axis},keepdims=0,select_last_index={last}>(x) }}"
    x = whole(5, 4, low=0, high=2, dtype="float32")
    agrees(graph + body, {"x": x}, {"x": x[:1]})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hardmax_takes_the_first_of_equals(axis: int) -> None:
    graph = f"g ({IN}) => (float[] y) {{ r = Round(x) y = Hardmax<axis={axis}>(r) }}"
    agrees(graph, *FREE)


@pytest.mark.parametrize("kind", ["float", "int32", "int64"])
@pytest.mark.parametrize(("exclusive", "reverse"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_running_sums(kind: str, exclusive: int, reverse: int) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    graph = f"g ({kind}[3,4] x, int64 a) => ({kind}[] y)"
    body = f"{{ y = CumSum<exclusive={exclusive},reverse={reverse}>(x, a) }}"
    x = whole(3, 4, dtype=dtype)
    agrees(f"{graph} {body}", {"x": x, "a": np.array(0)}, {"x": x, "a": np.array(-1)})


_SHAPES = [((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5))]
_WIDE = [((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (2, 4, 5)), ((2, 3, 4), (4,))]


@pytest.mark.parametrize(("left", "right"), [*_SHAPES, *_WIDE])
@pytest.mark.parametrize("kind", ["float", "int32", "int64"])
def test_products_of_any_ranks(left: tuple[int, ...], right: tuple[int, ...], kind: str) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    sizes = [",".join(map(str, shape)) for shape in (left, right)]
    graph = f"g ({kind}[{sizes[0]}] x, {kind}[{sizes[1]}] y) => ({kind}[] z) {{ z = MatMul(x, y) }}"
    agrees(graph, {"x": whole(*left, dtype=dtype), "y": whole(*right, seed=1, dtype=dtype)}, rtol=1e-5)


def test_products_of_free_sizes() -> None:
    graph = f"g ({IN}) => (float[] y) {{ t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t) }}"
    agrees(graph, *FREE, rtol=1e-5)


def test_a_product_with_no_inner_elements_is_zero() -> None:
    graph = "g (float[2,0] x, float[0,3] y) => (float[] z) { z = MatMul(x, y) }"
    agrees(graph, {"x": floats(2, 0), "y": floats(0, 3)})


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_integer_products_less_their_zero_points(kind: str) -> None:
    graph = f"g ({kind}[3,4] x, {kind}[4,2] y, {kind} a, {kind} b) => (int32[] z)"
    feed = {"x": whole(3, 4, low=0, high=99, dtype=kind), "y": whole(4, 2, low=0, high=99, dtype=kind)}
    zeros = {"a": np.array(12, kind), "b": np.array(3, kind)}
    agrees(f"{graph} {{ z = MatMulInteger(x, y, a, b) }}", {**feed, **zeros})


@pytest.mark.parametrize("kind", ["float", "int32", "int64"])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_the_first_of_equals_stands_first(kind: str, largest: int, axis: int) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    graph = f"g ({kind}[N,6] x, int64[1] k) => ({kind}[] v, int64[] i)"
    body = f"{{ v, i = TopK<axis={axis},largest={largest}>(x, k) }}"
    x = whole(4, 6, low=0, high=3, dtype=dtype)
    agrees(f"{graph} {body}", {"x": x, "k": ints(3)}, {"x": x[:2], "k": ints(1)})


@pytest.mark.parametrize(("outputs", "read"), [("v, i", "v"), ("v, i", "i")])
def test_the_largest_or_their_places_alone(outputs: str, read: str) -> None:
    kind = {"v": "float", "i": "int64"}[read]
    graph = (
        f"g (float[3,5] x) => ({kind}[] y) <int64[1] k = {{2}}> {{ {outputs} = TopK(x, k) y = Neg({read}) }}"
    )
    agrees(graph, {"x": floats(3, 5)})


def test_the_smallest_whole_number_is_not_turned_over() -> None:
    x = np.array([[-(2**63), 2**63 - 1, 0, -1]], np.int64)
    graph = "g (int64[1,4] x) => (int64[] v, int64[] i) <int64[1] k = {4}> { v, i = TopK<largest=0>(x, k) }"
    agrees(graph, {"x": x})


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("kind", ["float", "int64"])
def test_different_elements_and_their_places(order: int, kind: str) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    graph = f"g ({kind}[3,4] x) => ({kind}[] y, int64[] f, int64[] i, int64[] c)"
    agrees(
        f"{graph} {{ y, f, i, c = Unique<sorted={order}>(x) }}",
        {"x": whole(3, 4, low=-2, high=3, dtype=dtype)},
    )


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", ["float", "int64", "int8"])
def test_different_rows_and_their_places(order: int, axis: int, kind: str) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    graph = f"g ({kind}[5,3,4] x) => ({kind}[] y, int64[] f, int64[] i, int64[] c)"
    body = f"{{ y, f, i, c = Unique<sorted={order},axis={axis}>(x) }}"
    x = whole(5, 3, 4, low=0, high=2, dtype=dtype)
    x[3], x[:, 2], x[..., 1] = x[1], x[:, 0], x[..., 3]
    agrees(f"{graph} {body}", {"x": x}, {"x": np.zeros_like(x)})


def test_doubles_are_summed_half_against_half() -> None:
    graph = "g (double[3,7] x, double[7,2] m) => (double[] a, double[] b, double[] c, double[] d)"
    body = "{ a = ReduceSum(x, k) b = ReduceProd<keepdims=0>(x) c = MatMul(x, m) d = CumSum(x, o) }"
    numbers = "<int64[1] k = {1}, int64 o = {1}>"
    x = floats(3, 7).astype(np.float64) * 1e200
    agrees(f"{graph} {numbers} {body}", {"x": x * 1e-199, "m": floats(7, 2).astype(np.float64)}, rtol=1e-12)


@pytest.mark.parametrize(("time", "batch"), [(0, 1), (1, 0)])
def test_sequences_are_turned_as_far_as_they_go(time: int, batch: int) -> None:
    graph = f"g (float[3,4,2] x, int64[{(3, 4)[batch]}] n) => (float[] y)"
    count = ints(1, 3, 2) if batch == 0 else ints(1, 3, 2, 3)
    body = f"{{ y = ReverseSequence<time_axis={time},batch_axis={batch}>(x, n) }}"
    agrees(f"{graph} {body}", {"x": floats(3, 4, 2), "n": count})


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("kind", ["float", "int64", "bool"])
def test_triangles_of_free_sizes(upper: int, kind: str) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    graph = f"g ({kind}[2,N,M] x, int64 k) => ({kind}[] y) {{ y = Trilu<upper={upper}>(x, k) }}"
    feeds = [
        {"x": whole(2, rows, columns, low=0, dtype=dtype), "k": np.array(k)}
        for rows, columns, k in ((3, 4, 0), (4, 2, 1), (1, 5, -1), (3, 3, -9), (3, 3, 2**62))
    ]
    agrees(graph, *feeds)


def test_tensors_made_from_numbers() -> None:
    graph = "g (int64[2] s, int64 n, float[N,M] x) => (int32[] a, int64[] b, float[] c, float[] d)"
    body = "{ a = ConstantOfShape<value=int32[1] {7}>(s) b = Range(z, n, t) c = EyeLike<k=1>(x)"
    body += " d = ConstantOfShape(s) }"
    numbers = "<int64 z = {3}, int64 t = {2}>"
    feeds = [{"s": ints(2, size), "n": np.array(9), "x": floats(size, 3)} for size in (1, 4)]
    agrees(f"{graph} {numbers} {body}", *feeds)


def test_a_range_that_never_reaches_its_limit_has_no_elements() -> None:
    graph = "g (int64 a, int64 b, int64 c, float[2] x) => (float[] y) { r = Range(a, b, c) f = Cast<to=1>(r)"
    feeds = [
        {"a": np.array(first), "b": np.array(last), "c": np.array(step), "x": floats(2)}
        for first, last, step in ((5, 3, 1), (3, 5, -1), (0, 7, 3), (7, 0, -3))
    ]
    agrees(f"{graph} y = Concat<axis=0>(x, f) }}", *feeds)


@pytest.mark.parametrize("limit", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("centre", [0, 1])
def test_boxes_that_overlap_are_dropped_as_onnxruntime_drops_them(limit: float, centre: int) -> None:
    graph = "g (float[2,N,4] b, float[2,3,N] s, int64[1] m, float[1] i, float[1] t) => (int64[] y)"
    body = f"{{ y = NonMaxSuppression<center_point_box={centre}>(b, s, m, i, t) }}"
    rest = {"m": ints(4), "i": np.array([limit], np.float32), "t": np.array([0.2], np.float32)}
    feeds = []
    for count in (12, 5):
        boxes = floats(2, count, 4, low=0.1, high=1.0, seed=count)
        boxes[0, 1] = boxes[0, 0]
        boxes[1, 0, 2:] = boxes[1, 0, :2] if not centre else 0
        feeds.append({"b": boxes, "s": floats(2, 3, count, low=0, high=1, seed=count + 1), **rest})
    agrees(f"{graph} {body}", *feeds)


def test_a_slice_of_which_nothing_is_left_is_an_empty_array(tmp_path: Path) -> None:
    """LiteRT 2.3 raises where it should show no elements."""
    graph = """g (float[4, 3] x, int64[1] e) => (float[k, 3] y)
    <int64[1] s = {0}, int64[1] a = {0}> { y = Slice (x, s, e, a) }"""
    made = lowered(graph)
    path = tmp_path / "m.tflite"
    made.write(path)
    ports = {port.name: port for port in (*made.inputs, *made.outputs)}
    tensors = {
        name: Tensor(name=name, dtype=dtype, shape=(), artifact_name=ports[name].name)
        for name, dtype in (("x", "float32"), ("e", "int64"), ("y", "float32"))
    }
    needs = Requirements(runtime="litert", min_runtime=None)
    built = Built(
        main=path.name, inputs=(tensors["x"], tensors["e"]), outputs=(tensors["y"],), requires=needs, route=""
    )
    session = LiteRtSession(path, built)
    for end, rows in ((0, 0), (3, 3)):
        found = session.step({"x": np.ones((4, 3), np.float32), "e": np.array([end])})["y"]
        assert found.shape == (rows, 3)
