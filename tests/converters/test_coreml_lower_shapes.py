"""Shapes, places and windows: what is fed, negative, empty, free, or too much for Core ML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgekit_converters.errors import Refusal
from tests.converters.coreml_lowered import emulated, graph_model, lowered, node_model, reference, same
from tests.converters.graphs import Array

RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 3, 6, 7)).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def test_indices_that_count_from_the_back_are_the_same_when_they_are_computed() -> None:
    inputs: dict[str, Array] = {"x": X, "i": ints(-1, 0, -2)}
    same(node_model("Gather", inputs, axis=1), inputs)
    same(node_model("Gather", {"x": X}, constants={"i": ints(-1, 0, -2)}, axis=3), {"x": X})


def test_a_constant_index_out_of_range_is_refused_not_wrapped() -> None:
    with pytest.raises(Refusal, match="out of range"):
        lowered(node_model("Gather", {"x": X}, constants={"i": ints(0, 9)}, axis=1))


def test_scattered_elements_may_be_fewer_than_the_data_has() -> None:
    data, places = RNG.random((4, 5)).astype(np.float32), np.array([[0, -1, 2], [3, 1, 0]], np.int64)
    updates = RNG.random((2, 3)).astype(np.float32)
    inputs: dict[str, Array] = {"x": data, "i": places, "u": updates}
    same(node_model("ScatterElements", inputs, axis=0), inputs)
    same(node_model("ScatterElements", inputs, axis=1, reduction="add"), inputs)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scattering_slices_reduces_as_asked(reduction: str) -> None:
    data = RNG.random((4, 3)).astype(np.float32)
    inputs: dict[str, Array] = {
        "x": data,
        "i": np.array([[1], [-1]], np.int64),
        "u": RNG.random((2, 3)).astype(np.float32),
    }
    same(node_model("ScatterND", inputs, reduction=reduction), inputs)


def test_an_index_beyond_the_depth_is_no_class_at_all() -> None:
    values: dict[str, Array] = {"depth": np.array(4, np.int64), "values": np.array([-1.0, 5.0], np.float32)}
    x = ints(0, 3, 4, -1, -5)
    same(node_model("OneHot", {"x": x}, constants=values, axis=0), {"x": x})


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [((1, -1), (5, -20), (2, 3), (2, -2)), ((0,), (100,), (1,), (2,)), ((-3,), (-1,), (3,), (1,))],
)
def test_slices_backwards_and_beyond_the_end_fed_or_stored(
    starts: Any, ends: Any, axes: Any, steps: Any
) -> None:
    bounds = {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes), "p": ints(*steps)}
    stored = node_model("Slice", {"x": X}, constants=bounds)
    same(stored, {"x": X})
    fed = node_model("Slice", {"x": X}, constants=bounds)
    for name in ("s", "e", "p"):
        weight = next(item for item in fed.graph.initializer if item.name == name)
        fed.graph.initializer.remove(weight)
        fed.graph.input.append(helper.make_tensor_value_info(name, weight.data_type, list(weight.dims)))
    same(fed, {"x": X, **{name: bounds[name] for name in ("s", "e", "p")}})


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding_of_any_axis_in_every_mode(mode: str) -> None:
    pads = ints(0, 2, 1, 0, 1, 1, 3, 0)
    same(node_model("Pad", {"x": X}, constants={"pads": pads}, mode=mode), {"x": X})


def test_padding_takes_away_where_it_is_negative_and_pads_whole_numbers() -> None:
    x = RNG.integers(-9, 9, (3, 4), np.int32)
    constants: dict[str, Array] = {"pads": ints(-1, 2, 1, -1), "value": np.array(7, np.int32)}
    same(node_model("Pad", {"x": x}, constants=constants), {"x": x})


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(
    ("pads", "strides", "dilations"), [((1, 0, 1, 0), (2, 2), (1, 1)), ((0, 1, 1, 0), (2, 3), (1, 2))]
)
def test_the_last_window_that_reaches_out_counts_only_what_is_there(
    kind: str, count: int, pads: Any, strides: Any, dilations: Any
) -> None:
    options: dict[str, Any] = {
        "kernel_shape": [3, 2],
        "pads": pads,
        "strides": strides,
        "dilations": dilations,
    }
    if kind == "AveragePool":
        options["count_include_pad"] = count
    same(node_model(kind, {"x": X}, ceil_mode=1, **options), {"x": X})


def test_the_places_of_maxima_count_through_the_whole_tensor() -> None:
    model = node_model("MaxPool", {"x": X}, outputs=("y", "i"), kernel_shape=[2, 2], pads=[1, 0, 0, 1])
    same(model, {"x": X})


@pytest.mark.parametrize(
    "options", [{"output_padding": [1, 1]}, {"pads": [0, 1, 2, 0]}, {"output_shape": [13, 14]}]
)
def test_a_transposed_convolution_has_onnx_s_size_and_values(options: dict[str, Any]) -> None:
    weights = {
        "w": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32),
        "b": RNG.random(2).astype(np.float32),
    }
    same(node_model("ConvTranspose", {"x": X}, constants=weights, strides=[2, 2], **options), {"x": X})


def test_weights_that_are_computed_convolve_too() -> None:
    inputs: dict[str, Array] = {
        "x": X,
        "w": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "b": RNG.random(4).astype(np.float32),
    }
    same(node_model("Conv", inputs, pads=[1, 0, 0, 1]), inputs, rtol=1e-4)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_lstm_has_onnx_s_gates_in_core_ml_s_order(direction: str) -> None:
    d = 2 if direction == "bidirectional" else 1
    weights = {
        "w": RNG.uniform(-0.4, 0.4, (d, 20, 3)),
        "r": RNG.uniform(-0.4, 0.4, (d, 20, 5)),
        "b": RNG.uniform(-0.4, 0.4, (d, 40)),
    }
    constants: dict[str, Array] = {name: value.astype(np.float32) for name, value in weights.items()}
    x = RNG.standard_normal((6, 2, 3)).astype(np.float32)
    model = node_model(
        "LSTM", {"x": x}, constants=constants, outputs=("y", "h", "c"), hidden_size=5, direction=direction
    )
    same(model, {"x": x}, rtol=1e-4)
    assert "lstm" in lowered(model).facts["ops"]


def test_a_free_batch_is_one_program_for_all_of_its_sizes() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=-1),
    ]
    constants: dict[str, Array] = {"w": RNG.standard_normal((126, 4)).astype(np.float32)}
    model = graph_model(nodes, {"x": X}, ["y"], constants=constants, free={"x": ["N", 3, 6, 7]})
    for n in (1, 2):
        same(model, {"x": X[:n]}, rtol=1e-4)


def test_an_input_without_elements_is_the_constant_that_it_is() -> None:
    inputs: dict[str, Array] = {"x": X, "axes": np.zeros((0,), np.int64)}
    same(node_model("ReduceSum", inputs, noop_with_empty_axes=1), inputs)


def test_axes_that_are_fed_are_told_apart_by_the_program() -> None:
    x = RNG.random((3, 2, 2)).astype(np.float32)
    for axis in (1, 2, -1):
        inputs: dict[str, Array] = {"x": x, "axes": ints(axis)}
        model = node_model("ReduceSum", inputs, keepdims=0)
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        for size in (3, 2):
            model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = size
        same(model, inputs)


def test_six_axes_are_refused_with_the_node_named() -> None:
    model = node_model("Reshape", {"x": X}, constants={"s": ints(1, 2, 3, 1, 6, 7)})
    with pytest.raises(Refusal) as caught:
        lowered(model)
    assert caught.value.code == "rank_above_five"


def test_names_that_core_ml_forbids_are_changed_and_found_again() -> None:
    inputs: dict[str, Array] = {"1/x:0": X, "1_x_0": X}
    model = node_model("Add", inputs, outputs=("y.out",))
    made = lowered(model)
    assert [port.artifact_name for port in (*made.inputs, *made.outputs)] == ["_1_x_0", "_1_x_0_1", "y_out"]
    np.testing.assert_allclose(emulated(model, inputs)["y.out"], reference(model, inputs)["y.out"])


def test_quantize_and_dequantize_stay_pairs() -> None:
    scale, zero = np.array(0.02, np.float32), np.array(3, np.int8)
    weight = RNG.integers(-127, 127, (4, 3, 3, 3), np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["dw"], axis=0),
        helper.make_node("Conv", ["d", "dw"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    constants: dict[str, Array] = {"s": scale, "z": zero, "w": weight, "ws": np.full(4, 0.01, np.float32)}
    model = graph_model(nodes, {"x": X}, ["y"], constants=constants)
    ops = lowered(model).facts["ops"]
    assert (ops["quantize"], ops["dequantize"]) == (2, 2)
    assert ops["constexpr_affine_dequantize"] == 1
    same(model, {"x": X}, atol=0.021)


@pytest.mark.parametrize("sizes", [(2, 3, 4, 10), (5, 2, 6, 7), (1, 4, 9, 3)])
def test_a_centre_crop_between_known_sizes_is_the_same_in_the_hub(sizes: tuple[int, ...]) -> None:
    inputs: dict[str, Array] = {"x": X, "shape": ints(*sizes)}
    model = node_model("CenterCropPad", inputs)
    shape = model.graph.output[0].type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add().dim_value = size
    same(model, inputs)


def test_joined_parts_and_constants_beyond_float16_stay_right_in_a_float16_program() -> None:
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["j"], axis=1),
        helper.make_node("Add", ["j", "far"], ["k"]),
        helper.make_node("Sub", ["k", "far"], ["y"]),
    ]
    model = graph_model(nodes, {"x": X}, ["y"], constants={"far": np.array(1e5, np.float32)})
    same(model, {"x": X}, atol=0.02, precision="fp16", rounding="float16")


def test_a_list_of_shapes_stands_in_the_description() -> None:
    model = node_model("Relu", {"x": X}, free={"x": ["N", 3, 6, 7]})
    lowered(model)  # imports coremltools without the frameworks that it seeks
    from edgekit_converters.targets.coreml.lower import Interface

    shapes = [[1, 3, 6, 7], [2, 3, 6, 7]]
    same(model, {"x": X}, interface=Interface(shapes={"x": shapes}))
    same(model, {"x": X}, interface=Interface(ranges={"N": (1, 4)}))


@pytest.mark.parametrize("scale", [0.5, 0.37])
def test_attention_becomes_one_op_where_ios_has_it(scale: float) -> None:
    rng = np.random.default_rng(8)
    inputs: dict[str, Array] = {n: rng.standard_normal((1, 2, 5, 4)).astype(np.float32) for n in "qkv"}
    inputs["m"] = rng.standard_normal((1, 1, 5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "t"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "m"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["w"], axis=-1),
        helper.make_node("MatMul", ["w", "v"], ["y"]),
    ]
    model = graph_model(nodes, inputs, ["y"], constants={"scale": np.array(scale, np.float32)})
    assert lowered(model, deployment_target="iOS18").facts["ops"]["scaled_dot_product_attention"] == 1
    assert "scaled_dot_product_attention" not in lowered(model).facts["ops"]
    same(model, inputs, deployment_target="iOS18", rtol=1e-4)
