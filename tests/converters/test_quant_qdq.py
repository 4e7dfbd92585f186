"""The QDQ writer: what it writes obeys the rules, loads, computes nearly the same, and fuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgekit.rules import Rules, load_rules
from edgekit_converters.quantize import affine, analysis
from edgekit_converters.quantize.emulate import emulate, result_names
from edgekit_converters.quantize.graphs import clone, constant
from edgekit_converters.quantize.qdq import quantize
from edgekit_converters.quantize.ranges import Ranges
from edgekit_converters.quantize.running import serialize
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import canonical, head, known, residual, samples

TFLITE, ONNX, TRITON = (load_rules(name) for name in ("tflite-2.3", "onnx-1.31", "triton-10.3"))
RULES = pytest.mark.parametrize("rules", [TFLITE, ONNX, TRITON], ids=lambda item: item.name)


def quantized(model: ir.Model, rules: Rules, precision: str = "int8", **options: object) -> ir.Model:
    ranges = Ranges(known(model, samples()), "minmax")
    return quantize(model, ranges, rules, precision=precision, **options)  # type: ignore[arg-type]  # tests only


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def output_of(model: ir.Model, kind: str) -> ir.Value:
    return next(node.outputs[0] for node in model.graph if node.op_type == kind)


def grid_after(value: ir.Value) -> tuple[float, int]:
    pair = next(node for node in value.consumers() if node.op_type == "QuantizeLinear")
    return float(constant(pair.inputs[1])), int(constant(pair.inputs[2]))


@RULES
def test_the_qdq_graph_is_valid_keeps_its_names_and_computes_nearly_the_same(rules: Rules) -> None:
    model = canonical(residual)
    made = quantized(model, rules)
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    assert [item.name for item in made.graph.outputs] == [item.name for item in model.graph.outputs]
    assert [item.name for item in made.graph.inputs] == ["x"]
    (name,) = (str(item.name) for item in model.graph.outputs)
    expected, found = (emulate(item, samples(seed=2))[name] for item in (model, made))
    assert analysis.snr(expected, found) > 25


@RULES
def test_every_weight_is_int8_without_the_least_value_and_symmetric(rules: Rules) -> None:
    made = quantized(canonical(residual), rules)
    weights = [node for node in made.graph if node.op_type in ("Conv", "Gemm")]
    for node in weights:
        back = node.inputs[1].producer()  # type: ignore[union-attr]  # a weight is there
        assert back is not None
        whole, zero = constant(back.inputs[0]), constant(back.inputs[2])
        assert whole.dtype == np.int8
        assert whole.min() >= -127
        assert not zero.any()
        if node.op_type == "Conv":
            assert constant(back.inputs[1]).shape == (whole.shape[0],)


def test_a_bias_is_int32_at_input_scale_times_weight_scale() -> None:
    made = quantized(canonical(residual), TFLITE)
    for node in made.graph:
        if node.op_type != "Conv":
            continue
        entry, weight, bias = (value.producer() for value in node.inputs)  # type: ignore[union-attr]  # three given
        assert entry is not None
        assert weight is not None
        assert bias is not None
        assert constant(bias.inputs[0]).dtype == np.int32
        product = constant(entry.inputs[1]) * constant(weight.inputs[1])
        np.testing.assert_array_equal(constant(bias.inputs[1]), product)


def test_tensorrt_gets_symmetric_activations_and_float_biases() -> None:
    made = quantized(canonical(residual), TRITON)
    pairs = [node for node in made.graph if node.op_type == "QuantizeLinear"]
    assert pairs
    assert not any(constant(node.inputs[2]).any() for node in pairs)
    conv = next(node for node in made.graph if node.op_type == "Conv")
    assert conv.inputs[2] is not None
    assert constant(conv.inputs[2]).dtype == np.float32


def test_nothing_is_rounded_between_a_convolution_and_its_activation() -> None:
    made = quantized(canonical(residual), TFLITE)
    for node in made.graph:
        if node.op_type == "Relu":
            maker = node.inputs[0].producer()  # type: ignore[union-attr]  # a Relu has an input
            assert maker is not None
            assert maker.op_type in ("Conv", "Add")


def test_fixed_scales_of_softmax_are_written() -> None:
    made = quantized(canonical(residual), TFLITE)
    assert grid_after(output_of(made, "Softmax")) == (1 / 256, -128)


def test_movers_and_pooling_share_the_scale_of_their_input() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4))
        y = g.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
        y = g.op("Transpose", y, perm=[0, 2, 3, 1])
        return g.op("MatMul", y, g.weight(4, 2)), [4, 4, 2]

    made = quantized(canonical(build), TFLITE)
    found = {grid_after(output_of(made, kind)) for kind in ("Conv", "MaxPool", "Transpose")}
    assert len(found) == 1


def test_a_concatenation_gets_all_inputs_on_its_own_scale() -> None:
    """TFLite's kernel copies integers: another scale would be silently wrong."""

    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        left = g.op("Sigmoid", g.op("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4)))
        right = g.op("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4))
        y = g.op("Concat", left, right, axis=1)
        return g.op("Conv", y, g.weight(2, 8, 1, 1)), [2, 8, 8]

    made = quantized(canonical(build), TFLITE)
    node = next(item for item in made.graph if item.op_type == "Concat")
    wanted = grid_after(node.outputs[0])
    for value in node.inputs:
        back = value.producer()  # type: ignore[union-attr]  # both are there
        assert back is not None
        assert back.op_type == "DequantizeLinear"
        assert (float(constant(back.inputs[1])), int(constant(back.inputs[2]))) == wanted


def test_boxes_and_scores_do_not_share_one_scale() -> None:
    model = canonical(head)
    inputs = samples()
    made = quantized(model, TFLITE)
    (name,) = (str(item.name) for item in model.graph.outputs)
    expected, found = emulate(model, inputs)[name], emulate(made, inputs)[name]
    assert np.abs(expected[:, :4]).max() > 100
    assert np.abs(expected[:, 4:] - found[:, 4:]).max() < 0.03
    concat = next(node for node in made.graph if node.op_type == "Concat")
    assert not any(item.op_type == "QuantizeLinear" for item in concat.outputs[0].consumers())


def test_an_op_of_unknown_range_stays_float() -> None:
    model = canonical(residual)
    ranges = dict(Ranges(known(model, samples()), "minmax"))
    gone = str(output_of(model, "GlobalAveragePool").name)
    del ranges[gone]
    made = quantize(model, ranges, TFLITE, precision="int8")
    pooled = output_of(made, "GlobalAveragePool")
    assert not any(item.op_type == "QuantizeLinear" for item in pooled.consumers())


def test_a_layer_kept_float_keeps_its_activation_with_it() -> None:
    model = canonical(residual)
    conv = output_of(model, "Conv")
    made = quantized(model, TFLITE, overrides={str(conv.name): "float32"})
    (reader,) = next(v for v in (n.outputs[0] for n in made.graph) if v.name == conv.name).consumers()
    assert reader.op_type == "Relu"


def test_an_elementwise_op_between_float_ops_stays_float() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Add", g.op("Erf", "x"), g.constant(np.float32(1)))
        return g.op("Erf", y), [3, 8, 8]

    assert "QuantizeLinear" not in kinds(quantized(canonical(build), TFLITE))


def test_sixteen_bit_activations_are_symmetric_and_weights_stay_int8() -> None:
    model = canonical(residual)
    made = quantized(model, TFLITE, "int16x8")
    pairs = [node for node in made.graph if node.op_type == "QuantizeLinear"]
    assert {constant(node.inputs[2]).dtype for node in pairs} == {np.dtype(np.int16)}
    assert not any(constant(node.inputs[2]).any() for node in pairs)
    (name,) = (str(item.name) for item in model.graph.outputs)
    eight = quantized(model, TFLITE)
    expected = emulate(model, samples())[name]
    better, worse = (analysis.snr(expected, emulate(item, samples())[name]) for item in (made, eight))
    assert better > worse


def test_onnxruntime_fuses_every_convolution_of_a_residual_block(tmp_path: Path) -> None:
    """int8 activations would leave the convolutions beside a tensor with two readers in float."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(serialize(quantized(canonical(residual), ONNX)), options)
    found = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert found.count("QLinearConv") == 3
    assert "Conv" not in found


def test_average_pooling_loads_optimized() -> None:
    """onnxruntime's integer form refuses the attribute that opset 19 brought."""

    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4))
        y = g.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2], dilations=[1, 1])
        return g.op("Conv", y, g.weight(2, 4, 1, 1)), [2, 4, 4]

    ort.InferenceSession(serialize(quantized(canonical(build), ONNX)))


def test_shared_weights_are_stored_once() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        weight = g.weight(3, 3, 1, 1)
        return g.op("Conv", g.op("Conv", "x", weight), weight), [3, 8, 8]

    made = quantized(canonical(build), TFLITE)
    assert sum(constant(item).ndim == 4 for item in made.graph.initializers.values()) == 1


def test_the_same_graph_gives_the_same_bytes() -> None:
    model = canonical(residual)
    assert serialize(quantized(model, TFLITE)) == serialize(quantized(clone(model), TFLITE))


def test_what_an_exporter_left_of_a_dense_layer_becomes_one_gemm() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Reshape", "x", g.constant(np.array([-1, 192], np.int64)))
        y = g.op("Sub", g.op("Mul", g.op("MatMul", y, g.weight(192, 5)), g.weight(5)), g.weight(5))
        y = g.op("Relu", g.op("Add", y, g.weight(1, 5)))
        return g.op("Div", g.op("Gemm", y, g.weight(7, 5), transB=1), g.constant(np.float32(3))), [7]

    model = canonical(build)
    folded = clone(model)
    affine.fold(folded.graph)
    assert kinds(folded) == ["Reshape", "Gemm", "Relu", "Gemm"]
    for a, b in zip(emulate(model, samples()).values(), emulate(folded, samples()).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_residual_written_as_sum_is_an_add() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(3, 3, 1, 1))
        return g.op("Relu", g.op("Sum", y, "x")), [3, 8, 8]

    folded = canonical(build)
    affine.fold(folded.graph)
    assert kinds(folded) == ["Conv", "Add", "Relu"]


def test_a_shift_per_row_is_no_bias() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        return g.op("Add", g.op("MatMul", "x", g.weight(8, 8)), g.weight(8, 1)), [3, 8, 8]

    folded = canonical(build)
    assert affine.fold(folded.graph) == 0


def test_result_names_find_an_output_and_an_inner_tensor_after_their_pairs() -> None:
    model = canonical(residual)
    made = quantized(model, TFLITE)
    places = result_names(made)
    (name,) = (str(item.name) for item in model.graph.outputs)
    assert places[name] == name
    pooled = str(output_of(model, "GlobalAveragePool").name)
    assert places[pooled] != pooled


def test_rules_with_two_granularities_are_taken_in_their_order() -> None:
    model = canonical(residual)
    shapes = []
    for finer in (False, True):
        made = quantized(model, TFLITE, finer=finer)
        gemm = next(node for node in made.graph if node.op_type == "Gemm")
        shapes.append(constant(gemm.inputs[1].producer().inputs[1]).shape)  # type: ignore[union-attr]  # a pair
    assert shapes == [(), (10,)]


def test_rules_without_a_rule_leave_everything_float() -> None:
    assert "QuantizeLinear" not in kinds(quantized(canonical(residual), replace(TFLITE, ops=())))
