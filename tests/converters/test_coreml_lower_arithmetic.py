"""What Core ML's ops would quietly compute differently: defaults, whole numbers, ties, and types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgekit.errors import DataError
from edgekit_converters.errors import Refusal
from tests.converters.coreml_lowered import emulated, graph_model, lowered, node_model, same
from tests.converters.graphs import Array
from tests.converters.mil_packages import coremltools

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
SIGNED = np.array([[-7, 7, -7, 7, 0, -1]], np.int32)
DIVISOR = np.array([[2, 2, -2, -2, 3, 5]], np.int32)


def test_the_logarithm_of_zero_is_not_that_of_a_default_epsilon() -> None:
    x = np.array([0.0, 1e-40, 1.0], np.float32)
    found = emulated(node_model("Log", {"x": x}), {"x": x})["y"]
    assert found[0] == -np.inf


def test_a_reciprocal_has_no_epsilon() -> None:
    x = np.array([1e-4, -2.0], np.float32)
    same(node_model("Reciprocal", {"x": x}), {"x": x})


def test_the_root_of_a_square_keeps_its_sign_right() -> None:
    inputs = {"x": X}
    nodes = [helper.make_node("Pow", ["x", "two"], ["s"]), helper.make_node("Sqrt", ["s"], ["y"])]
    model = graph_model(nodes, inputs, ["y"], constants={"two": np.array(2, np.float32)})
    np.testing.assert_allclose(emulated(model, inputs)["y"], np.abs(X), rtol=1e-5)


def test_choosing_minus_infinity_is_not_adding_it() -> None:
    x = np.array([np.inf, 1.0, np.inf], np.float32)
    constants = {"c": np.array([True, False, True]), "low": np.array([-np.inf], np.float32)}
    model = node_model("Where", {"x": x}, constants=constants, order=["c", "low", "x"])
    np.testing.assert_array_equal(emulated(model, {"x": x})["y"], [-np.inf, 1.0, -np.inf])


@pytest.mark.parametrize("kind", ["Div", "Mod"])
def test_whole_numbers_divide_as_onnx_has_it(kind: str) -> None:
    inputs = {"a": SIGNED, "b": DIVISOR}
    same(node_model(kind, inputs), inputs)


def test_a_remainder_with_fmod_has_the_sign_of_the_dividend() -> None:
    inputs = {"a": SIGNED, "b": DIVISOR}
    same(node_model("Mod", inputs, fmod=1), inputs)
    floats = {"a": X, "b": np.full((1,), -0.7, np.float32)}
    same(node_model("Mod", floats, fmod=1), floats)


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint8, "Add"), (np.int8, "Sub"), (np.uint8, "Mul")])
def test_narrow_whole_numbers_wrap_around(dtype: Any, kind: str) -> None:
    rng = np.random.default_rng(1)
    info = np.iinfo(dtype)
    inputs: dict[str, Array] = {n: rng.integers(info.min, info.max, (50,), dtype) for n in "ab"}
    model = node_model(kind, inputs)
    wanted = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[kind](inputs["a"], inputs["b"])
    np.testing.assert_array_equal(emulated(model, inputs)["y"], wanted)


def test_arithmetic_of_uint32_is_refused_because_it_wraps_elsewhere() -> None:
    inputs = {n: np.array([1, 2], np.uint32) for n in "ab"}
    with pytest.raises(Refusal) as caught:
        lowered(node_model("Add", inputs))
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize("kind", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bits_of_negative_numbers_are_right(kind: str) -> None:
    rng = np.random.default_rng(2)
    inputs = {n: rng.integers(-(1 << 31), (1 << 31) - 1, (40,), np.int32) for n in "ab"}
    wanted = {"BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor}[kind]
    found = emulated(node_model(kind, inputs), inputs)["y"]
    np.testing.assert_array_equal(found, wanted(inputs["a"], inputs["b"]))


def test_an_int64_that_does_not_fit_32_bits_is_an_error_never_clipped() -> None:
    x = np.array([1, 1 << 40], np.int64)
    with pytest.raises(DataError, match="1099511627776") as caught:
        emulated(node_model("Abs", {"x": x}), {"x": x})
    assert caught.value.code == "integer_range"


def test_int64_and_bool_come_back_as_they_were() -> None:
    inputs = {"a": np.array([[1, -5]], np.int64), "b": np.array([[1, 7]], np.int64)}
    same(node_model("Equal", inputs), inputs)
    same(node_model("Add", inputs), inputs)
    truths = {"a": np.array([True, False, True]), "b": np.array([[True], [False]])}
    same(node_model("Xor", truths), truths)


def test_a_scalar_stays_a_scalar_on_the_outside() -> None:
    inputs = {"a": np.array(2.5, np.float32), "b": np.array(-1.0, np.float32)}
    same(node_model("Mul", inputs), inputs)


def test_float64_has_no_lossless_twin_and_is_refused() -> None:
    x = np.array([1.0], np.float64)
    with pytest.raises(Refusal, match="float64") as caught:
        lowered(node_model("Abs", {"x": x}))
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_of_equal_extremes_the_one_that_onnx_names_is_taken(kind: str, last: int) -> None:
    x = np.array([[2.0, 2.0, 1.0, 1.0], [0.0, 3.0, 3.0, 0.0]], np.float32)
    same(node_model(kind, {"x": x}, axis=1, select_last_index=last), {"x": x})


def test_a_value_at_the_threshold_is_not_above_it() -> None:
    x = np.array([1.0, 1.5, 0.5], np.float32)
    same(node_model("ThresholdedRelu", {"x": x}, alpha=1.0), {"x": x})


def test_halves_round_to_even() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    same(node_model("Round", {"x": x}), {"x": x})


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_both_forms_of_gelu_are_told_apart(approximate: str) -> None:
    same(node_model("Gelu", {"x": X}, approximate=approximate), {"x": X})


def test_the_inverse_sine_of_tiny_and_huge_numbers_keeps_its_digits() -> None:
    x = np.array([1e-6, -1e-3, 0.4, 3.0, 1e7, 1e20, -1e30, 0.0], np.float32)
    same(node_model("Asinh", {"x": x}), {"x": x}, rtol=1e-4)


def test_an_upper_bound_below_the_lower_one_wins() -> None:
    inputs = {"x": X}
    bounds = {"low": np.array(1, np.float32), "high": np.array(-1, np.float32)}
    same(node_model("Clip", inputs, constants=bounds), inputs)


def test_a_float16_program_does_not_overflow_where_a_constant_is_large() -> None:
    x = np.array([[1.0, 2.0]], np.float32)
    model = node_model("Mul", {"x": x}, constants={"c": np.array([1e6], np.float32)})
    found = emulated(model, {"x": x}, precision="fp16", rounding="float16")["y"]
    np.testing.assert_allclose(found, [[1e6, 2e6]], rtol=1e-3)


def test_a_mean_of_whole_numbers_is_cut_like_onnx_cuts_it() -> None:
    x = np.array([[-3, -4], [5, 4]], np.int32)
    axes = {"axes": np.array([1], np.int64)}
    same(node_model("ReduceMean", {"x": x}, constants=axes), {"x": x})


def test_products_of_whole_numbers_are_written_out_since_the_runtime_has_none() -> None:
    rng = np.random.default_rng(4)
    inputs: dict[str, Array] = {"a": rng.integers(-99, 99, (2, 3, 5), np.int32)}
    inputs["b"] = rng.integers(-99, 99, (5, 4), np.int32)
    model = node_model("MatMul", inputs)
    assert "matmul" not in lowered(model).facts["ops"]
    np.testing.assert_array_equal(emulated(model, inputs)["y"], inputs["a"] @ inputs["b"])


def test_a_small_epsilon_is_not_lost_in_float16() -> None:
    x = np.full((1, 4), 2.0, np.float32)
    scale = {"s": np.ones(4, np.float32)}
    model = node_model("LayerNormalization", {"x": x}, constants=scale, epsilon=1e-12)
    found = emulated(model, {"x": x}, precision="fp16", rounding="float16")["y"]
    np.testing.assert_array_equal(found, np.zeros((1, 4)))


def test_five_axes_are_normalized_without_the_op_that_crashes() -> None:
    x = np.random.default_rng(5).standard_normal((2, 3, 2, 4, 3)).astype(np.float32)
    constants = {name: np.random.default_rng(6).random(3).astype(np.float32) for name in "sbmv"}
    model = node_model("BatchNormalization", {"x": x}, constants=constants)
    same(model, {"x": x})


@pytest.mark.parametrize("target", ["iOS15", "iOS17"])
def test_eight_bits_at_the_boundary_are_never_cast_to_by_core_ml(target: str) -> None:
    """Core ML has int32 there, and its runtime takes no cast to int8: `Evaluator` refuses one."""
    x = np.arange(-128, 128, 5, np.int8).reshape(1, -1)
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["y"]),
    ]
    constants: dict[str, Array] = {"scale": np.array(0.05, np.float32), "zero": np.array(-7, np.int8)}
    same(graph_model(nodes, {"x": x}, ["y"], constants=constants), {"x": x}, deployment_target=target)


def test_a_fault_of_a_rule_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    coremltools()
    from edgekit_converters.targets.coreml.lower.registry import RULES

    def broken(node: Any) -> Any:
        return node.no_such_attribute

    monkeypatch.setitem(RULES, "Relu", RULES["Relu"]._replace(emit=broken))
    with pytest.raises(AttributeError, match="no_such_attribute"):
        lowered(node_model("Relu", {"x": X}))


def test_an_input_is_compared_with_a_threshold_before_it_is_rounded() -> None:
    """What a tree asks. In float16 both numbers become 1000, and the answer another one."""
    x = np.array([[0.0, 1000.2, 3.0], [0.0, 1000.05, 3.0]], np.float32)
    nodes = [
        helper.make_node("Gather", ["x", "column"], ["f"], axis=1),
        helper.make_node("LessOrEqual", ["f", "threshold"], ["left"]),
        helper.make_node("Where", ["left", "low", "high"], ["y"]),
    ]
    constants: dict[str, Array] = {
        "column": np.array([1], np.int64),
        "threshold": np.array(1000.1, np.float32),
        "low": np.array(0.25, np.float32),
        "high": np.array(0.75, np.float32),
    }
    model = graph_model(nodes, {"x": x}, ["y"], constants=constants)
    same(model, {"x": x}, rounding="float16", precision="fp16")
