"""From a stored calibration to a target's graph, and each integer op of TFLite against the emulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.rules import load_rules
from edgekit_converters.errors import Refusal
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.quantize import analysis
from edgekit_converters.quantize.blocks import rounded, weight_only
from edgekit_converters.quantize.emulate import emulate
from edgekit_converters.quantize.half import halved
from edgekit_converters.quantize.pieces import pieces
from edgekit_converters.quantize.pipeline import for_target
from edgekit_converters.quantize.qdq import quantize
from edgekit_converters.quantize.ranges import Ranges
from edgekit_converters.quantize.running import serialize
from edgekit_converters.targets.tflite.lower import SUPPORTED, Options, lower
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import canonical, head, known, residual, samples, stored, uneven

TFLITE, ONNX, TRITON, TIDL = (
    load_rules(name) for name in ("tflite-2.3", "onnx-1.31", "triton-10.3", "tidl-am68a-11.0")
)
FRESH = samples(seed=7)


def quality(model: ir.Model, made: ir.Model) -> float:
    (name,) = (str(item.name) for item in model.graph.outputs)
    return analysis.snr(emulate(model, FRESH)[name], emulate(made, FRESH)[name])


@pytest.mark.parametrize("rules", [TFLITE, ONNX, TRITON, TIDL], ids=lambda item: item.name)
def test_every_target_is_made_from_the_same_file(rules: Any, tmp_path: Path) -> None:
    model = canonical(residual)
    ranges, given = stored(model, samples(), tmp_path)
    made, facts = for_target(model, ranges, rules, "int8", samples=given)
    assert quality(model, made) > 20
    assert facts["weighted_ops"] == [4, 4]
    assert {item["name"] for item in facts["layers"]} >= {str(model.graph.outputs[0].name)}
    assert len(facts["tried"]) > 3
    assert "rescue" not in facts


def test_without_samples_nothing_is_measured_and_biases_are_corrected(tmp_path: Path) -> None:
    model = canonical(residual)
    ranges, _ = stored(model, samples(), tmp_path)
    made, facts = for_target(model, ranges, TFLITE, "int8")
    assert facts["recipe"] == ["ranges: minmax", "bias correction"]
    assert quality(model, made) > 20


def test_without_calibration_static_int8_is_refused() -> None:
    with pytest.raises(Refusal, match="needs calibration data") as caught:
        for_target(canonical(residual), None, TFLITE, "int8")
    assert caught.value.code == "needs_calibration"


def test_a_source_that_is_quantized_is_not_quantized_again(tmp_path: Path) -> None:
    model = canonical(residual)
    ranges, given = stored(model, samples(), tmp_path)
    once, _ = for_target(model, ranges, TFLITE, "int8", samples=given)
    twice, facts = for_target(once, None, TFLITE, "int8")
    assert facts["recipe"] == ["as the source is quantized"]
    assert [node.op_type for node in twice.graph] == [node.op_type for node in once.graph]


def test_a_graph_without_an_integer_op_is_refused(tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        return g.op("Erf", "x"), [3, 8, 8]

    model = canonical(build)
    ranges, given = stored(model, samples(), tmp_path)
    with pytest.raises(Refusal) as caught:
        for_target(model, ranges, TFLITE, "int8", samples=given)
    assert caught.value.code == "nothing_quantized"


def test_uneven_channels_are_equalized_because_that_helps(tmp_path: Path) -> None:
    model = canonical(uneven)
    ranges, given = stored(model, samples(), tmp_path)
    made, facts = for_target(model, ranges, TFLITE, "int8", samples=given)
    assert "cross-layer equalization" in facts["recipe"]
    assert quality(model, made) > 30


def test_a_breach_is_rescued_by_few_layers_with_the_price_told(tmp_path: Path) -> None:
    """Nothing else helps a tensor whose few large values and many small ones all count."""

    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(8, 3, 1, 1), g.weight(8))
        y = g.op("Conv", g.op("Relu", y), g.weight(8, 8, 1, 1), g.weight(8))
        return g.op("Conv", g.op("Log", g.op("Abs", y)), g.weight(8, 8, 3, 3), g.weight(8)), [8, 6, 6]

    model = canonical(build)
    ranges, given = stored(model, samples(), tmp_path)
    plain, facts = for_target(model, ranges, TFLITE, "int8", samples=given, goal=0.0)
    goal = quality(model, plain) + 6
    made, facts = for_target(model, ranges, TFLITE, "int8", samples=given, goal=goal)
    rescue = facts["rescue"]
    assert rescue["reached"]
    assert rescue["to"] == "float32"
    assert 0 < len(rescue["layers"]) < facts["quantized_ops"] + len(rescue["layers"])
    assert rescue["snr_before"] < goal <= rescue["snr_after"]
    assert quality(model, made) > quality(model, plain) + 3
    assert all(facts["float_ops"][name].endswith("kept_float") for name in rescue["layers"])


def test_an_accelerator_without_float_is_rescued_in_sixteen_bits(tmp_path: Path) -> None:
    model = canonical(residual)
    ranges, given = stored(model, samples(), tmp_path)
    made, facts = for_target(model, ranges, TIDL, "int8", samples=given, goal=45.0)
    assert facts["rescue"]["to"] == "int16"
    types = {node.outputs[0].dtype for node in made.graph if node.op_type == "QuantizeLinear"}
    assert ir.DataType.INT16 in types


def test_heads_that_share_a_scale_are_named(tmp_path: Path) -> None:
    model = canonical(head)
    ranges, given = stored(model, samples(), tmp_path)
    _, facts = for_target(model, ranges, ONNX, "int8", samples=given)
    assert facts["split_heads"] == [str(model.graph.outputs[0].name)]


def test_tensors_that_legalising_made_are_measured_too(tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4))
        y = g.op("Mish", y)
        return g.op("Conv", y, g.weight(2, 4, 1, 1)), [2, 8, 8]

    model = canonical(build)
    ranges, given = stored(model, samples(), tmp_path)
    others = SUPPORTED - {"Mish"}
    made, facts = for_target(model, ranges, TFLITE, "int8", supported=others, samples=given)
    assert "Mish" not in {node.op_type for node in made.graph}
    assert "no_range" not in " ".join(facts["float_ops"].values())


def test_a_normalisation_that_is_taken_apart_stays_float_as_a_whole(tmp_path: Path) -> None:
    """Squares and variances on an 8-bit grid are not what anyone means by quantizing it."""

    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("MatMul", "x", g.weight(8, 8))
        y = g.op("LayerNormalization", y, g.weight(8), g.weight(8), axis=-1)
        return g.op("MatMul", y, g.weight(8, 4)), [3, 8, 4]

    model = canonical(build)
    ranges, given = stored(model, samples(), tmp_path)
    supported = SUPPORTED - {"LayerNormalization"}
    made, facts = for_target(model, ranges, TFLITE, "int8", supported=supported, samples=given)
    kept = {why.split(":")[0] for why in facts["float_ops"].values()}
    assert kept >= {"ReduceMean", "Sub", "Mul", "Add", "Sqrt"}
    assert facts["weighted_ops"] == [2, 2]
    between = [node for node in made.graph if node.op_type == "QuantizeLinear"]
    assert len(between) == 4  # input, both products, and what the second reads


def test_what_is_not_quantized_for_tensorrt_is_float16_between_casts(tmp_path: Path) -> None:
    model = canonical(residual)
    ranges, given = stored(model, samples(), tmp_path)
    made, _ = for_target(model, ranges, TRITON, "int8", samples=given)
    half, facts = halved(made, {})
    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    wide = {node.op_type for node in half.graph if node.outputs[0].dtype == ir.DataType.FLOAT}
    assert wide <= {"Cast", "DequantizeLinear"}
    assert [item.dtype for item in (*half.graph.inputs, *half.graph.outputs)] == [ir.DataType.FLOAT] * 2
    assert facts == {"float32_ops": []}
    assert quality(model, half) > quality(model, made) - 3


def test_values_beyond_float16_keep_their_op_in_float32() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Mul", g.op("Relu", "x"), g.constant(np.float32(1e5)))
        return g.op("Mul", y, g.constant(np.float32(1e-5))), [3, 8, 8]

    model = canonical(build)
    half, facts = halved(model, Ranges(known(model, samples()), "minmax"))
    assert len(facts["float32_ops"]) == 2
    assert quality(model, half) > 60


def test_blocks_of_four_bits_are_half_a_byte_each_and_computed_as_stored() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        return g.op("MatMul", g.op("Relu", g.op("MatMul", "x", g.weight(64, 96))), g.weight(96, 64)), [64]

    model = canonical(build, (64,))
    made, facts = weight_only(model)
    assert facts["elements"] == 2 * 64 * 96
    data = serialize(made)
    assert len(data) < 0.2 * len(serialize(model))
    inputs = samples(16, (64,))
    (expected,) = emulate(model, inputs).values()
    (found,) = OnnxSession(data).run(inputs).values()
    assert analysis.snr(expected, found) > 15


def test_the_last_block_may_be_short() -> None:
    weight = np.random.default_rng(0).standard_normal((70, 5)).astype(np.float32)
    whole, scale = rounded(weight, 0, "int4", 32)
    assert (whole.shape, scale.shape) == ((70, 5), (3, 5))
    assert (whole.min(), whole.max()) >= (-8, -8)
    assert whole.max() <= 7
    assert analysis.snr(weight, whole * np.repeat(scale, 32, axis=0)[:70]) > 15


def test_a_model_of_small_matrices_is_not_called_int4() -> None:
    with pytest.raises(Refusal) as caught:
        for_target(canonical(residual), None, ONNX, "int4")
    assert caught.value.code == "nothing_quantized"


def test_a_damaged_weight_is_named_and_nothing_is_written() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        weight = np.ones((64, 64), np.float32)
        weight[3, 5] = np.nan
        return g.op("MatMul", g.op("Relu", "x"), g.constant(weight)), [64]

    model = canonical(build, (64,))
    names = ["x", *(str(item.name) for node in model.graph for item in node.outputs)]
    ranges = dict.fromkeys(names, (0.0, 1.0))
    with pytest.raises(Refusal, match="MatMul") as caught:
        weight_only(model)
    assert caught.value.code == "not_finite"
    with pytest.raises(Refusal, match="MatMul") as caught:
        quantize(model, ranges, TFLITE, precision="int8")
    assert caught.value.code == "not_finite"


def test_too_few_samples_are_told_in_the_facts(tmp_path: Path) -> None:
    model = canonical(residual)
    ranges, given = stored(model, samples(3), tmp_path)
    _, facts = for_target(model, ranges, TFLITE, "int8", samples=given)
    assert facts["doubts"] == ["too_few_samples"]


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_each_integer_op_of_tflite_is_within_one_step_of_the_emulation(precision: str, kernels: str) -> None:
    model = canonical(residual)
    made = quantize(model, Ranges(known(model, samples()), "minmax"), TFLITE, precision=precision)
    found = list(pieces(made))
    assert {item.op for item in found} == {
        "Conv",
        "Add",
        "GlobalAveragePool",
        "Reshape",
        "Gemm",
        "Softmax",
    }
    names = sorted({name for item in found for name in (*item.inputs, *item.outputs)})
    tensors = emulate(made, samples(8), names)
    for piece in found:
        data = lower(piece.model, options=Options()).data
        results = _run(data, [tensors[name] for name in piece.inputs], kernels)
        for name, result in zip(piece.outputs, results, strict=True):
            assert result.dtype == tensors[name].dtype, piece.op
            # The 16-bit softmax reads its exponential from a table; a step is 1/32768 there.
            steps = 2 if (precision, piece.op) == ("int16x8", "Softmax") else 1
            assert np.abs(result.astype(np.int64) - tensors[name]).max() <= steps, piece.op


def _run(data: bytes, inputs: list[Any], kernels: str) -> list[Any]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.AUTO if kernels == "xnnpack" else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    details = interpreter.get_input_details()
    for detail, value in zip(details, inputs, strict=True):
        interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail, value in zip(details, inputs, strict=True):
        assert detail["dtype"] == value.dtype
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(item["index"]).copy() for item in interpreter.get_output_details()]


def test_every_op_in_tflites_rules_has_an_integer_form_in_its_lowering() -> None:
    """A rule without an integer form is a conversion there and back for nothing."""
    from edgekit_converters.targets.tflite.lower.registry import Quantized, rules

    forms = {
        (op, kind.lower())
        for op, rule in rules().items()
        for kind in rule.dtypes
        if rule.quantized is not Quantized.NONE and kind != "UINT8"
    }
    assert {(op, rule.activations[0]) for rule in TFLITE.ops for op in rule.ops} <= forms


def test_the_rescue_type_of_each_runtime_is_the_cheaper_one() -> None:
    assert (TFLITE.rescue, TIDL.rescue) == ("float32", "int16")
    assert replace(TFLITE, rescue="int16").rescue == "int16"
