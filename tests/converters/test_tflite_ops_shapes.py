"""Shapes, joining, slicing and padding, lowered and run: constant, computed, and over free sizes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit_converters.errors import Refusal
from tests.converters.tflite_ops import agrees, floats, lowered, whole

FREE = ({"x": floats(2, 3, 4)}, {"x": floats(5, 3, 2, seed=1)}, {"x": floats(1, 3, 1, seed=2)})
"""Feeds for float[N,3,M]."""
IN = "float[N,3,M] x"


def ints(*numbers: int) -> np.ndarray:
    """An int64 vector."""
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    "target", ["0, -1", "-1, 3", "0, 3, -1, 1", "-1", "0, 0, 0", "0, 0, -1", "0, 1, 3, -1"]
)
def test_reshape_of_free_sizes(target: str) -> None:
    count = len(target.split(","))
    agrees(f"g ({IN}) => (float[] y) <int64[{count}] s = {{{target}}}> {{ y = Reshape(x, s) }}", *FREE)


def test_reshape_copies_two_free_sizes() -> None:
    graph = "g (float[N,6,M] x) => (float[] y) <int64[4] s = {0, 2, -1, 3}> { z = Transpose<perm=[0,2,1]>(x)"
    body = " t = Reshape(x, s) y = Transpose<perm=[0,3,2,1]>(t) w = Add(z, z) }"
    agrees(graph + body, {"x": floats(2, 6, 4)}, {"x": floats(3, 6, 1)})


@pytest.mark.parametrize("target", [(4, 6), (0, -1), (2, 0, 2, -1), (-1,), (24, 1)])
def test_reshape_to_a_computed_shape(target: tuple[int, ...]) -> None:
    graph = f"g (float[2,3,4] x, int64[{len(target)}] s) => (float[] y) {{ y = Reshape(x, s) }}"
    agrees(graph, {"x": floats(2, 3, 4), "s": ints(*target)})


def test_reshape_from_the_shape_of_another_tensor() -> None:
    graph = f"g ({IN}, float[N,M,3] z) => (float[] y) {{ s = Shape(z) y = Reshape(x, s) }}"
    agrees(graph, *({**feed, "z": floats(feed["x"].shape[0], feed["x"].shape[2], 3)} for feed in FREE))


def test_reshape_to_and_from_a_scalar() -> None:
    graph = "g (float[1,1] x, float s) => (float[] y, float[] z) <int64[0] e = {}, int64[2] o = {1, 1}>"
    body = " { y = Reshape(x, e) z = Reshape(s, o) }"
    agrees(graph + body, {"x": floats(1, 1), "s": np.array(3, np.float32)})


def test_zero_is_a_size_where_zeros_are_allowed() -> None:
    graph = "g (float[0,3] x) => (float[] y) <int64[3] s = {3, 0, 2}> { y = Reshape<allowzero=1>(x, s) }"
    agrees(graph, {"x": floats(0, 3)})


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_flatten_free_sizes(axis: int) -> None:
    agrees(f"g ({IN}) => (float[] y) {{ y = Flatten<axis={axis}>(x) }}", *FREE)


def test_axes_of_size_one_come_and_go() -> None:
    graph = f"g ({IN}) => (float[] y, float[] z) <int64[2] a = {{0, -1}}, int64[2] b = {{-1, 0}}>"
    agrees(f"{graph} {{ u = Unsqueeze(x, a) y = Neg(u) z = Squeeze(y, b) }}", *FREE)


@pytest.mark.parametrize("axes", [(0,), (2,), (-1, 0), (0, 2, 4)])
def test_computed_axes_of_unsqueeze_and_squeeze(axes: tuple[int, ...]) -> None:
    count = len(axes)
    graph = f"g (float[2,3] x, int64[{count}] a) => (float[] y, float[] z)"
    agrees(f"{graph} {{ y = Unsqueeze(x, a) z = Squeeze(y, a) }}", {"x": floats(2, 3), "a": ints(*axes)})


def test_squeeze_without_axes_takes_every_one() -> None:
    agrees("g (float[1,3,1,2] x) => (float[] y) { y = Squeeze(x) }", {"x": floats(1, 3, 1, 2)})


@pytest.mark.parametrize("kind", ["float", "double", "uint8", "bool", "int64"])
def test_transposes_of_many_axes(kind: str) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    x = whole(2, 1, 3, 2, 1, 2, low=0, dtype=dtype)
    graph = f"g ({kind}[2,1,3,2,1,2] x) => ({kind}[] y) {{ y = Transpose<perm=[5,2,0,4,3,1]>(x) }}"
    agrees(graph, {"x": x})


def test_transposes_that_undo_each_other_cost_nothing() -> None:
    graph = f"g ({IN}) => (float[] y) {{ a = Transpose<perm=[2,0,1]>(x) b = Relu(a)"
    made = agrees(f"{graph} y = Transpose<perm=[1,2,0]>(b) }}", *FREE)
    assert made.facts["transposes"] == 0


def test_a_channel_shuffle_between_convolutions_moves_elements_once() -> None:
    numbers = "<int64[5] s = {0, 2, 4, 5, 6}, int64[4] t = {0, 8, 5, 6}>"
    graph = f"g (float[N,8,5,6] x, float[8] w) => (float[] y) {numbers} {{ a = MaxPool<kernel_shape=[1,1]>(x)"
    body = " b = Reshape(a, s) c = Transpose<perm=[0,2,1,3,4]>(b) d = Reshape(c, t)"
    tail = " y = MaxPool<kernel_shape=[2,2]>(d) }"
    feeds = [{"x": floats(count, 8, 5, 6, seed=count), "w": floats(8)} for count in (1, 3)]
    made = agrees(graph + body + tail, *feeds)
    # In, the shuffle, out: channels last all the way.
    assert made.facts["transposes"] == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, 8, 3, 4), (2, 2, 4, 3, 4)),
        ((2, 8, 3, 4), (16, 3, 4)),
        ((2, 8, 3, 4), (2, 8, 12)),
        ((2, 8, 3, 4), (4, 4, 12)),
        ((2, 1, 3, 4), (2, 12)),
        ((1, 8, 1, 1), (1, 8)),
        ((1, 8, 1, 1), (8, 1, 1, 1)),
        ((2, 6, 3, 4), (2, 3, 6, 4)),
        ((2, 6, 3, 4), (2, 1, 6, 1, 3, 4)),
        ((2, 6, 3, 4), (4, 3, 3, 4)),
    ],
)
def test_a_reshape_of_what_is_held_channels_last(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    sizes, target = (",".join(map(str, shape)) for shape in (before, after))
    graph = f"g (float[{sizes}] x) => (float[] y, float[] z) <int64[{len(after)}] s = {{{target}}}>"
    body = "{ a = MaxPool<kernel_shape=[1,1]>(x) y = Reshape(a, s) z = Relu(y) }"
    agrees(f"{graph} {body}", {"x": floats(*before)})


@pytest.mark.parametrize("target", ["1", "3, 1", "2, 1, 3, 1", "4, 1, 1, 1"])
def test_expand_free_sizes(target: str) -> None:
    count = len(target.split(","))
    graph = f"g ({IN}) => (float[] y) <int64[{count}] s = {{{target}}}> {{ y = Expand(x, s) }}"
    agrees(graph, *FREE)


@pytest.mark.parametrize("target", [(3,), (2, 3), (4, 2, 1), (1, 1)])
def test_expand_to_a_computed_shape(target: tuple[int, ...]) -> None:
    graph = f"g (float[2,1] x, int64[{len(target)}] s) => (float[] y) {{ y = Expand(x, s) }}"
    agrees(graph, {"x": floats(2, 1), "s": ints(*target)})


def test_expand_of_a_scalar() -> None:
    graph = "g (float x, int64[2] s) => (float[] y) { y = Expand(x, s) }"
    agrees(graph, {"x": np.array(2, np.float32), "s": ints(2, 3)})


@pytest.mark.parametrize(("start", "end"), [(0, 3), (1, 3), (-2, -1), (-9, 9)])
def test_parts_of_a_shape(start: int, end: int) -> None:
    graph = f"g ({IN}) => (int64[] y, int64 z) {{ s = Shape<start={start},end={end}>(x) z = Size(x)"
    agrees(f"{graph} y = Identity(s) }}", *FREE)


def test_no_part_of_a_shape() -> None:
    agrees("g (float[2,3,4] x) => (int64[] y) { y = Shape<start=2,end=1>(x) }", FREE[0])


@pytest.mark.parametrize("kind", ["float", "double", "uint16", "uint64", "bool", "float16"])
def test_concat_of_every_type(kind: str) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    x, y = whole(2, 3, low=0, dtype=dtype), whole(2, 1, low=0, seed=1, dtype=dtype)
    graph = f"g ({kind}[2,N] x, {kind}[2,1] y) => ({kind}[] z) {{ z = Concat<axis=-1>(x, y, x) }}"
    agrees(graph, {"x": x, "y": y}, {"x": y, "y": y})


def test_concat_of_eight_axes() -> None:
    shape = (1, 2, 1, 2, 1, 2, 1, 2)
    sizes = ",".join(map(str, shape))
    graph = f"g (float[{sizes}] x) => (float[] y) {{ y = Concat<axis=3>(x, x) }}"
    agrees(graph, {"x": floats(*shape)})


@pytest.mark.parametrize("kind", ["float", "int64", "bool", "double"])
def test_split_into_given_sizes(kind: str) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    graph = f"g ({kind}[N,7] x) => ({kind}[] a, {kind}[] b, {kind}[] c) <int64[3] s = {{2, 0, 5}}>"
    body = "{ a, b0, c = Split<axis=1>(x, s) b = Concat<axis=1>(b0, a) }"
    agrees(f"{graph} {body}", {"x": whole(3, 7, low=0, dtype=dtype)}, {"x": whole(1, 7, low=0, dtype=dtype)})


def test_split_of_a_free_size_into_shares() -> None:
    graph = f"g ({IN}) => (float[] a, float[] b, float[] c) {{ a, b, c = Split<axis=2,num_outputs=3>(x) }}"
    agrees(graph, {"x": floats(2, 3, 8)}, {"x": floats(1, 3, 3)}, {"x": floats(1, 3, 7)})


@pytest.mark.parametrize(("first", "second"), [("a", "d"), ("b", "e"), ("c", "f")])
def test_a_split_whose_other_parts_nobody_reads(first: str, second: str) -> None:
    graph = "g (float[7] x, float[N] z) => (float[] y, float[] w) <int64[3] s = {2, 1, 4}>"
    body = "{ a, b, c = Split(x, s) d, e, f = Split<num_outputs=3>(z)"
    body += f" y = Neg({first}) w = Neg({second}) }}"
    agrees(f"{graph} {body}", {"x": floats(7), "z": floats(8)}, {"x": floats(7), "z": floats(5)})


def test_split_into_computed_sizes() -> None:
    graph = "g (float[5] x, int64[2] s) => (float[] a, float[] b) { a, b = Split(x, s) }"
    agrees(graph, {"x": floats(5), "s": ints(2, 3)}, {"x": floats(5), "s": ints(4, 1)})


def test_tile_by_constant_and_computed_counts() -> None:
    graph = f"g ({IN}, int64[3] n) => (float[] y, float[] z) <int64[3] k = {{2, 1, 3}}>"
    feeds = [{**feed, "n": ints(1, 2, 2)} for feed in FREE]
    agrees(f"{graph} {{ y = Tile(x, k) z = Tile(x, n) }}", *feeds)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_depth_and_space(mode: str, kind: str) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    graph = f"g ({kind}[2,8,3,5] x) => ({kind}[] y, {kind}[] z)"
    body = f'{{ y = DepthToSpace<blocksize=2,mode="{mode}">(x) z = SpaceToDepth<blocksize=2>(y) }}'
    agrees(f"{graph} {body}", {"x": whole(2, 8, 3, 5, dtype=dtype)})


FAR = 2**63 - 1
CUTS = [
    (1, 3, 1),
    (0, FAR, 2),
    (-2, FAR, 1),
    (FAR, -FAR - 1, -1),
    (-1, -5, -2),
    (3, 0, -1),
    (-100, 2, 1),
    (1, -1, 1),
]


@pytest.mark.parametrize(("start", "end", "step"), CUTS)
def test_slices_as_python_cuts(start: int, end: int, step: int) -> None:
    numbers = (
        f"<int64[1] s = {{{start}}}, int64[1] e = {{{end}}}, int64[1] a = {{-1}}, int64[1] k = {{{step}}}>"
    )
    graph = f"g (float[N,3,M] x) => (float[] y) {numbers} {{ y = Slice(x, s, e, a, k) }}"
    agrees(graph, {"x": floats(2, 3, 4)}, {"x": floats(1, 3, 7)})
    fixed = f"g (float[2,3,6] x) => (float[] y) {numbers} {{ y = Slice(x, s, e, a, k) }}"
    agrees(fixed, {"x": floats(2, 3, 6)})


@pytest.mark.parametrize(("start", "end", "step"), CUTS)
def test_slices_by_computed_places(start: int, end: int, step: int) -> None:
    graph = "g (float[4,3,6] x, int64[2] s, int64[2] e, int64[2] a, int64[2] k) => (float[] y)"
    places = {"s": ints(start, 0), "e": ints(end, 2), "k": ints(step, 1)}
    feeds = [{"x": floats(4, 3, 6), **places, "a": ints(*axes)} for axes in ((2, 0), (-1, 1), (0, -2))]
    agrees(f"{graph} {{ y = Slice(x, s, e, a, k) }}", *feeds)


def test_a_slice_without_axes_begins_at_the_first() -> None:
    graph = "g (float[4,3] x, int64[1] s, int64[1] e) => (float[] y) { y = Slice(x, s, e) }"
    agrees(
        graph,
        {"x": floats(4, 3), "s": ints(1), "e": ints(3)},
        {"x": floats(4, 3), "s": ints(-3), "e": ints(-1)},
    )


def test_an_empty_slice_of_known_sizes() -> None:
    numbers = "<int64[1] s = {3}, int64[1] e = {3}>"
    graph = f"g (float[4,3] x) => (float[] y) {numbers} {{ z = Slice(x, s, e) y = Concat<axis=0>(z, x) }}"
    agrees(graph, {"x": floats(4, 3)})


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pads_of_free_sizes(mode: str) -> None:
    numbers = "<int64[6] p = {1, 0, 0, 0, 2, 0}>"
    if mode == "reflect":
        numbers = "<int64[6] p = {0, 1, 0, 0, 2, 0}>"
    graph = f'g ({IN}) => (float[] y) {numbers} {{ y = Pad<mode="{mode}">(x, p) }}'
    agrees(graph, *FREE)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("kind", ["float", "int32", "int64", "double"])
def test_pads_by_computed_amounts(mode: str, kind: str) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    graph = f"g ({kind}[3,4] x, int64[4] p) => ({kind}[] y)"
    x = whole(3, 4, dtype=dtype)
    feeds = [{"x": x, "p": ints(*amounts)} for amounts in ((1, 0, 2, 3), (0, 0, 0, 0), (2, 1, 0, 1))]
    agrees(f'{graph} {{ y = Pad<mode="{mode}">(x, p) }}', *feeds)


def test_negative_pads_cut() -> None:
    numbers = "<int64[4] k = {-1, 2, 1, -3}, float v = {7.0}>"
    graph = "g (float[4,5] x, int64[4] p) => (float[] y, float[] z)"
    agrees(
        f"{graph} {numbers} {{ y = Pad(x, p, v) z = Pad(x, k, v) }}",
        {"x": floats(4, 5), "p": ints(-1, 2, 1, -3)},
    )


def test_pads_along_some_axes_with_a_computed_value() -> None:
    graph = "g (float[2,3,4] x, int64[4] p, float v, int64[2] a) => (float[] y) { y = Pad(x, p, v, a) }"
    feed = {"x": floats(2, 3, 4), "p": ints(1, 2, 0, 1), "v": np.array(9, np.float32)}
    agrees(graph, {**feed, "a": ints(2, 0)}, {**feed, "a": ints(-1, -2)})


def test_a_value_around_six_axes_is_refused() -> None:
    numbers = "<int64[12] p = {1,1,1,1,1,1,1,1,1,1,1,1}, float v = {1.0}>"
    with pytest.raises(Refusal) as found:
        lowered(f"g (float[1,1,1,1,1,1] x) => (float[] y) {numbers} {{ y = Pad(x, p, v) }}")
    assert found.value.code == "unsupported_attribute"
