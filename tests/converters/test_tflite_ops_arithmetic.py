"""Arithmetic, comparisons, bits and functions of one tensor, lowered and run, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit_converters.errors import Refusal
from tests.converters.tflite_ops import agrees, floats, lowered, whole

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-8, -1e-30, 1e30, 0.5, 1.5, 2.5, -0.5], np.float32)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("kind", ["float", "int32", "int64", "uint8", "int8", "uint32", "float16"])
def test_arithmetic_broadcasts_and_wraps(op: str, kind: str) -> None:
    dtype = {"float": "float32"}.get(kind, kind)
    high = 120 if dtype in ("int8", "uint8") else 9
    left = whole(2, 1, 3, 1, low=1, high=high, seed=1, dtype=dtype)
    right = whole(4, 1, 5, low=1, high=high, seed=2, dtype=dtype)
    graph = f"g ({kind}[2,1,3,1] x, {kind}[4,1,5] y) => ({kind}[] z) {{ z = {op}(x, y) }}"
    agrees(graph, {"x": left, "y": right})


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64"])
def test_integer_division_cuts_towards_zero(kind: str) -> None:
    x = np.array([-7, 7, -7, 7, 6, -6, 0, -1], kind)
    y = np.array([2, -2, -2, 2, 3, 3, 5, 100], kind)
    agrees(f"g ({kind}[8] x, {kind}[8] y) => ({kind}[8] z) {{ z = Div(x, y) }}", {"x": x, "y": y})


def test_long_division_is_exact_beyond_what_floats_hold() -> None:
    x = np.array([2**62 + 1, -(2**62) - 1, 2**53 + 1, 10**18, -(10**18), 2**63 - 1, 99, -99], np.int64)
    y = np.array([3, 7, -1, 10**9 + 7, 3, 2, 2**40, -(2**61)], np.int64)
    agrees("g (int64[8] x, int64[8] y) => (int64[8] z) { z = Div(x, y) }", {"x": x, "y": y})


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint32"])
def test_mod_of_integers_has_the_sign_that_onnx_wants(kind: str, mode: int) -> None:
    low = 1 if kind.startswith("u") else -9
    x, y = whole(40, low=low, seed=3, dtype=kind), whole(40, low=low, seed=4, dtype=kind)
    y = np.where(y == 0, y.dtype.type(5), y)
    graph = f"g ({kind}[40] x, {kind}[40] y) => ({kind}[40] z) {{ z = Mod<fmod={mode}>(x, y) }}"
    agrees(graph, {"x": x, "y": y})


def test_mod_of_floats_has_the_sign_of_the_dividend() -> None:
    x = np.array([-4.3, 7.2, 5.0, 4.3, -7.2, 8.0, 1e10, 3.0], np.float32)
    y = np.array([2.1, -3.4, 8.0, -2.1, 3.4, 5.0, 3.7, np.inf], np.float32)
    agrees("g (float[8] x, float[8] y) => (float[8] z) { z = Mod<fmod=1>(x, y) }", {"x": x, "y": y}, atol=0)


def test_power_of_integers_wraps_like_repeated_products() -> None:
    x = np.array([2, -3, 0, 1, -1, 5, 7, 3], np.int64)
    y = np.array([62, 33, 0, 90, 101, 20, 1, 39], np.int64)
    graph = "g (int64[8] x, int64[8] y) => (int64[8] z) { z = Pow(x, y) }"
    made = lowered(graph)
    assert made.data
    small = {"x": x[[2, 3, 4, 6]].repeat(2), "y": y[[2, 3, 4, 6]].repeat(2)}
    agrees(graph, small)


@pytest.mark.parametrize("number", [0.5, 2.0, 3.0, -1.0, 0.0])
def test_power_with_a_constant_exponent(number: float) -> None:
    graph = f"g (float[N,3] x) => (float[N,3] z) <float p = {{{number}}}> {{ z = Pow(x, p) }}"
    agrees(graph, {"x": floats(4, 3, low=0.1)}, {"x": floats(1, 3, low=0.1)}, rtol=1e-5)


def test_a_constant_exponent_of_more_axes_still_broadcasts() -> None:
    graph = "g (float[3] x) => (float[2,3] z) <float[2,1] p = {2.0, 2.0}> { z = Pow(x, p) }"
    agrees(graph, {"x": floats(3)})


def test_an_integer_to_a_computed_fractional_power_is_refused() -> None:
    with pytest.raises(Refusal) as found:
        lowered("g (int32[3] x, float[3] y) => (int32[3] z) { z = Pow(x, y) }")
    assert found.value.code == "unsupported_type"


@pytest.mark.parametrize("op", ["Max", "Min", "Sum", "Mean"])
def test_any_number_of_operands_broadcast(op: str) -> None:
    graph = f"g (float[2,1,3] x, float[4,1] y, float s) => (float[2,4,3] z) {{ z = {op}(x, y, s) }}"
    agrees(graph, {"x": floats(2, 1, 3), "y": floats(4, 1, seed=1), "s": np.array(0.1, np.float32)})


@pytest.mark.parametrize("kind", ["uint64", "double"])
def test_types_without_arithmetic_kernels_are_added_by_others(kind: str) -> None:
    dtype = "float64" if kind == "double" else kind
    x, y = whole(2, 3, low=0, dtype=dtype), whole(3, low=0, seed=1, dtype=dtype)
    graph = f"g ({kind}[2,3] x, {kind}[3] y) => ({kind}[2,3] a, {kind}[2,3] b, {kind}[2,3] c)"
    body = "{ a = Add(x, y) b = Mul(x, y) c = Max(x, y) }"
    agrees(f"{graph} {body}", {"x": x, "y": y})


_EXACT = [
    "Abs",
    "Neg",
    "Sign",
    "Floor",
    "Ceil",
    "Round",
    "Relu",
    "Reciprocal",
    "LeakyRelu",
    "ThresholdedRelu",
]
_CLOSE = [
    "Exp",
    "Sqrt",
    "Sin",
    "Cos",
    "Tanh",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Sinh",
    "Cosh",
    "Atan",
    "Erf",
]
_ALSO = ["Asinh", "Gelu", "Elu", "Selu", "Celu", "HardSigmoid", "HardSwish", "Mish"]


@pytest.mark.parametrize("op", [*_EXACT, *_CLOSE, *_ALSO])
def test_a_function_of_one_tensor_over_its_range(op: str) -> None:
    graph = f"g (float[N] x) => (float[N] y) {{ y = {op}(x) }}"
    small = np.concatenate([np.logspace(-12, 0, 40), -np.logspace(-12, 0, 40)]).astype(np.float32)
    x = {"x": np.concatenate([floats(200, low=-9, high=9), small])}
    positive = {"x": np.abs(x["x"])}
    # onnxruntime itself is off by an ulp of 1 in some (softplus, elu, gelu).
    agrees(graph, positive if op == "Sqrt" else x, rtol=2e-5, atol=0 if op in _EXACT else 1e-6)


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [("Asin", -1, 1), ("Acos", -1, 1), ("Atanh", -0.999, 0.999), ("Acosh", 1, 50), ("Log", 0, 9)],
)
def test_a_function_on_a_part_of_the_numbers(op: str, low: float, high: float) -> None:
    graph = f"g (float[300] x) => (float[300] y) {{ y = {op}(x) }}"
    agrees(graph, {"x": floats(300, low=low, high=high)}, rtol=2e-5, atol=1e-6)


def test_small_arguments_keep_their_digits() -> None:
    tiny = np.array([1e-6, -3e-6, 1e-4, -1e-5, 1e-20, 0.0], np.float32)
    graph = "g (float[6] x) => (float[6] a, float[6] b, float[6] c, float[6] d)"
    body = "{ a = Asinh(x) b = Atanh(x) c = Sinh(x) d = Atan(x) }"
    agrees(f"{graph} {body}", {"x": tiny}, rtol=1e-6, atol=0)


@pytest.mark.parametrize("inverse", ["Reciprocal(r)", "Div(one, r)"])
def test_a_root_and_its_reciprocal_are_one_kernel_unless_the_root_is_read_too(inverse: str) -> None:
    graph = f"g (float[9] x) => (float[9] y) <float one = {{1.0}}> {{ r = Sqrt(x) y = {inverse} }}"
    made = agrees(graph, {"x": floats(9, low=0.1)}, rtol=1e-6)
    assert made.facts["ops"] == {"RSQRT": 1}
    both = "g (float[9] x) => (float[9] y, float[9] z) <float one = {1.0}>"
    agrees(f"{both} {{ r = Sqrt(x) y = {inverse} z = Neg(r) }}", {"x": floats(9, low=0.1)}, rtol=1e-6)


def test_rounding_goes_to_the_even_neighbour() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 8388609.0], np.float32)
    agrees("g (float[8] x) => (float[8] y) { y = Round(x) }", {"x": x}, atol=0)


def test_infinite_and_missing_numbers_are_seen() -> None:
    graph = "g (float[12] x) => (bool[12] a, bool[12] b, bool[12] c, bool[12] d)"
    body = "{ a = IsNaN(x) b = IsInf(x) c = IsInf<detect_negative=0>(x) d = IsInf<detect_positive=0>(x) }"
    agrees(f"{graph} {body}", {"x": SPECIAL})


@pytest.mark.parametrize("graph", ["Clip(x, lo, hi)", "Relu(x)", "Clip(x, , hi)", "Clip(x, lo)"])
def test_a_missing_number_survives_clipping(graph: str) -> None:
    text = f"g (float[12] x) => (float[12] y) <float lo = {{-1.0}}, float hi = {{2.0}}> {{ y = {graph} }}"
    # Without a bound onnxruntime makes the largest number of infinity.
    x = (
        SPECIAL
        if graph.startswith("Relu") or graph.endswith("lo, hi)")
        else np.where(np.isinf(SPECIAL), 0, SPECIAL)
    )
    agrees(text, {"x": x}, atol=0)


def test_clip_with_low_above_high_gives_high() -> None:
    graph = "g (float[9] x, float lo, float hi) => (float[9] y) { y = Clip(x, lo, hi) }"
    ends = {"lo": np.array(2, np.float32), "hi": np.array(-1, np.float32)}
    agrees(graph, {"x": floats(9), **ends})


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "float16"])
def test_clip_of_other_types(kind: str) -> None:
    dtype = kind
    x = whole(30, low=0, high=99, dtype=dtype)
    graph = f"g ({kind}[30] x, {kind} lo, {kind} hi) => ({kind}[30] y) {{ y = Clip(x, lo, hi) }}"
    agrees(graph, {"x": x, "lo": np.array(20, dtype), "hi": np.array(70, dtype)})


@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("kind", ["float", "int8", "uint8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_comparisons_of_every_type(op: str, kind: str) -> None:
    dtype = np.dtype("float32" if kind == "float" else kind)
    x, y = whole(3, 4, low=0, high=4, dtype=dtype.name), whole(4, low=0, high=4, seed=1, dtype=dtype.name)
    x[0, 0] = np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max
    agrees(f"g ({kind}[3,4] x, {kind}[4] y) => (bool[3,4] z) {{ z = {op}(x, y) }}", {"x": x, "y": y})


def test_logic_broadcasts() -> None:
    graph = "g (bool[2,1] x, bool[3] y) => (bool[2,3] a, bool[2,3] b, bool[2,3] c, bool[2,1] d)"
    body = "{ a = And(x, y) b = Or(x, y) c = Xor(x, y) d = Not(x) }"
    agrees(f"{graph} {body}", {"x": np.array([[True], [False]]), "y": np.array([True, False, True])})


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_bits_of_every_width(kind: str) -> None:
    info = np.iinfo(kind)
    rng = np.random.default_rng(5)
    x = rng.integers(info.min, info.max, (3, 5), dtype=kind, endpoint=True)
    y = rng.integers(info.min, info.max, (5,), dtype=kind, endpoint=True)
    graph = f"g ({kind}[3,5] x, {kind}[5] y) => ({kind}[3,5] a, {kind}[3,5] b, {kind}[3,5] c, {kind}[3,5] d)"
    body = "{ a = BitwiseAnd(x, y) b = BitwiseOr(x, y) c = BitwiseXor(x, y) d = BitwiseNot(x) }"
    agrees(f"{graph} {body}", {"x": x, "y": y})


@pytest.mark.parametrize("kind", ["uint8", "uint32", "uint64"])
def test_shifts_drop_what_leaves_the_type(kind: str) -> None:
    x, y = whole(20, low=0, high=255, dtype=kind), whole(20, low=0, high=8, seed=1, dtype=kind)
    graph = f'g ({kind}[20] x, {kind}[20] y) => ({kind}[20] z) {{ z = BitShift<direction="LEFT">(x, y) }}'
    agrees(graph, {"x": x, "y": y})


@pytest.mark.parametrize("kind", ["float", "double", "uint8", "int32", "int64", "float16"])
def test_where_takes_every_type(kind: str) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    graph = f"g (bool[2,1] c, {kind}[3] x, {kind} y) => ({kind}[2,3] z) {{ z = Where(c, x, y) }}"
    feed = {"x": whole(3, low=0, dtype=dtype), "y": np.array(1, dtype)}
    agrees(graph, {"c": np.array([[True], [False]]), **feed})


_CASTS = [
    "float",
    "float16",
    "double",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "bool",
]


@pytest.mark.parametrize("source", _CASTS)
def test_casts_between_all_types(source: str) -> None:
    dtype = {"float": "float32", "double": "float64"}.get(source, source)
    low = 0 if dtype[0] in "bu" else -5
    outputs = ", ".join(f"{kind}[9] y{index}" for index, kind in enumerate(_CASTS))
    numbers = [1, 10, 11, 3, 2, 5, 4, 6, 12, 7, 9]
    body = " ".join(f"y{index} = Cast<to={number}>(x)" for index, number in enumerate(numbers))
    # A negative float has no meaning as an unsigned number.
    low = 0 if dtype.startswith("float") else low
    agrees(f"g ({source}[9] x) => ({outputs}) {{ {body} }}", {"x": whole(9, low=low, dtype=dtype)})


def test_integers_wrap_when_cast_to_fewer_bits() -> None:
    x = np.array([300, -1, 2**33 + 5, -(2**40)], np.int64)
    graph = "g (int64[4] x) => (uint8[4] a, int8[4] b, int32[4] c, uint64[4] d)"
    agrees(
        f"{graph} {{ a = Cast<to=2>(x) b = Cast<to=3>(x) c = Cast<to=6>(x) d = Cast<to=13>(x) }}", {"x": x}
    )


def test_a_slope_for_each_channel_multiplies_what_is_below_zero() -> None:
    graph = "g (float[N,3,2,2] x, float[3,1,1] s) => (float[N,3,2,2] y) { y = PRelu(x, s) }"
    slope = {"s": floats(3, 1, 1)}
    agrees(graph, {"x": floats(2, 3, 2, 2), **slope}, {"x": floats(5, 3, 2, 2, seed=1), **slope})


def test_scalars_stay_scalars() -> None:
    graph = "g (float x, float y) => (float z) { a = Add(x, y) b = Exp(a) z = Max(b, x) }"
    agrees(graph, {"x": np.array(0.5, np.float32), "y": np.array(-1, np.float32)})


def test_tensors_without_elements_go_through() -> None:
    graph = "g (float[0,3] x, float[3] y) => (float[0,3] z) { a = Add(x, y) z = Relu(a) }"
    agrees(graph, {"x": floats(0, 3), "y": floats(3)})
