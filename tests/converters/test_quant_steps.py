"""The optional steps: each leaves the float graph as it was, and each is taken only where it helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.rules import load_rules
from edgekit_converters.quantize import analysis, equalize
from edgekit_converters.quantize.correct import bias_shift
from edgekit_converters.quantize.emulate import emulate
from edgekit_converters.quantize.qdq import quantize
from edgekit_converters.quantize.ranges import Ranges
from edgekit_converters.quantize.rescue import cost, rescue
from edgekit_converters.quantize.scaling import sites
from edgekit_converters.quantize.search import MARGIN, Recipe, search
from edgekit_converters.quantize.statistics import Statistics
from tests.converters.graphs import Array, GraphBuilder
from tests.converters.quant_models import canonical, known, residual, samples, uneven

TFLITE = load_rules("tflite-2.3")


def outputs(model: ir.Model, inputs: dict[str, Array]) -> Array:
    (name,) = (str(item.name) for item in model.graph.outputs)
    found: Array = emulate(model, inputs)[name]
    return found


def quality(model: ir.Model, found: Statistics, *, reference: ir.Model, corrected: bool = False) -> float:
    means = {name: item.means for name, item in found.tensors.items() if item.means is not None}
    ranges = Ranges(found, "minmax")
    made = quantize(model, ranges, TFLITE, precision="int8", means=means if corrected else None)
    test = samples(seed=9)
    return analysis.snr(outputs(reference, test), outputs(made, test))


def test_bias_correction_takes_the_mean_error_of_rounding_back() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Reshape", "x", g.constant(np.array([-1, 192], np.int64)))
        matrix = g.random.standard_normal((192, 8)).astype(np.float32)
        matrix[0] = 30.0  # makes the one scale of the matrix coarse
        return g.op("Gemm", g.op("Sigmoid", y), g.constant(matrix), g.weight(8)), [8]

    model = canonical(build)
    found = known(model, samples())
    plain, corrected = (quality(model, found, reference=model, corrected=item) for item in (False, True))
    assert corrected > plain + 1


@pytest.mark.parametrize("group", [1, 2, 4])
def test_the_shift_of_a_grouped_convolution_is_that_of_its_own_inputs(group: int) -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        return g.op("Conv", "x", g.weight(4, 4 // group, 1, 1), group=group), [4, 8, 8]

    node = next(iter(canonical(build, (4, 8, 8)).graph))
    error = np.random.default_rng(0).standard_normal((4, 4 // group, 1, 1))
    means = np.array([1.0, 10.0, 100.0, 1000.0])
    expected = np.zeros(4)
    for channel in range(4):
        first = channel // (4 // group) * (4 // group)
        expected[channel] = -error[channel, :, 0, 0] @ means[first : first + 4 // group]
    np.testing.assert_allclose(bias_shift(node, error, means), expected)


def test_equalization_leaves_the_function_and_rescues_uneven_channels() -> None:
    model = canonical(uneven)
    found = known(model, samples())
    moved, changed = equalize.equalized(model, found.tensors, "equalize")
    assert changed
    np.testing.assert_allclose(outputs(moved, samples()), outputs(model, samples()), rtol=1e-3, atol=1e-2)
    better = Statistics(tensors={**found.tensors, **changed}, samples=found.samples)
    before = quality(model, found, reference=model)
    assert quality(moved, better, reference=model) > before + 10


def test_moved_statistics_are_those_of_the_moved_graph() -> None:
    model = canonical(uneven)
    moved, changed = equalize.equalized(model, known(model, samples()).tensors, "equalize")
    measured = known(moved, samples()).tensors
    for name, tensor in changed.items():
        other = measured[name]
        np.testing.assert_allclose((tensor.low, tensor.high), (other.low, other.high), rtol=1e-3)
        np.testing.assert_allclose(tensor.means, other.means, rtol=1e-2, atol=1e-2)


def test_smoothing_moves_outlier_channels_behind_a_layer_normalisation_into_the_matrix() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        gain = g.constant(np.where(np.arange(8) == 3, 200.0, 1.0).astype(np.float32))
        y = g.op("LayerNormalization", "x", gain, g.weight(8), axis=-1)
        matrix = g.random.standard_normal((8, 6)).astype(np.float32)
        matrix[3] /= 200
        return g.op("MatMul", y, g.constant(matrix)), [3, 8, 6]

    model = canonical(build)
    found = known(model, samples())
    moved, changed = equalize.equalized(model, found.tensors, "smooth")
    assert changed
    np.testing.assert_allclose(outputs(moved, samples()), outputs(model, samples()), rtol=1e-3, atol=1e-3)
    better = Statistics(tensors={**found.tensors, **changed}, samples=found.samples)
    assert quality(moved, better, reference=model) > quality(model, found, reference=model) + 5


def test_no_factor_passes_a_clip_an_output_or_a_second_reader() -> None:
    def clipped(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(4, 3, 1, 1))
        y = g.op("Clip", y, g.constant(np.float32(0)), g.constant(np.float32(6)))
        return g.op("Conv", y, g.weight(2, 4, 1, 1)), [2, 8, 8]

    assert sites(canonical(clipped).graph) == []
    tensors = [str(site.tensor.name) for site in sites(canonical(residual).graph)]
    assert len(tensors) == 1  # only the one inside of the block's branch


def test_the_layer_that_adds_the_noise_is_ranked_first() -> None:
    model = canonical(uneven)
    made = quantize(model, Ranges(known(model, samples()), "minmax"), TFLITE, precision="int8")
    layers = analysis.compare(model, made, samples())
    assert [item.op for item in layers] == ["Conv", "Relu", "Conv"]
    assert analysis.rank(layers)[0].op == "Conv"
    assert layers[-1].snr < layers[1].snr
    assert all(0.0 <= item.cosine <= 1.0 + 1e-9 for item in layers)


def test_a_step_that_does_not_help_is_not_taken() -> None:
    found = search(lambda _: 25.0, methods=["mse"], scalings=["equalize"], finer=True)
    assert found.recipe == Recipe()
    assert len(found.tried) == 5


def test_each_step_must_gain_the_margin_over_the_best_so_far() -> None:
    scores = {"minmax": 20.0, "mse": 25.0, "percentile": 25.0 + MARGIN / 2}

    def score(recipe: Recipe) -> float:
        return scores[recipe.method] + (1.0 if recipe.scaled else 0.0) - (5.0 if recipe.corrected else 0.0)

    found = search(score, methods=["mse", "percentile"], scalings=["smooth"], finer=False)
    assert found.recipe == Recipe(method="mse", scaled=("smooth",))
    assert found.score == 26.0


def test_finer_weights_are_not_tried_where_the_result_is_good() -> None:
    tried: list[Recipe] = []

    def score(recipe: Recipe) -> float:
        tried.append(recipe)
        return 40.0

    search(score, methods=[], scalings=[], finer=True)
    assert not any(item.finer for item in tried)


LAYERS = [f"layer{i}" for i in range(20)]


def culprits(*bad: str) -> tuple[list[int], object]:
    sizes: list[int] = []

    def score(moved: Sequence[str]) -> float:
        sizes.append(len(moved))
        return 30.0 if set(bad) <= set(moved) else 10.0

    return sizes, score


@pytest.mark.parametrize(
    "bad", [("layer0",), ("layer3", "layer9"), ("layer19",), ("layer0", "layer1", "layer2")]
)
def test_the_rescue_finds_exactly_the_culprits(bad: tuple[str, ...]) -> None:
    _, score = culprits(*bad)
    found = rescue(LAYERS, score, 20.0)  # type: ignore[arg-type]  # a function of a sequence
    assert found.reached
    assert found.layers == bad
    assert found.runs <= 2 * len(LAYERS)


def test_a_rescue_without_hope_says_so_and_names_the_best() -> None:
    found = rescue(LAYERS, lambda moved: 10.0 + len(moved) / 10, 20.0)
    assert not found.reached
    assert found.score < 20.0
    assert rescue([], lambda moved: 0.0, 20.0).layers == ()


def test_the_price_of_float_is_three_bytes_a_weight_and_of_sixteen_bits_none() -> None:
    weights, work = {"a": 100, "b": 300}, {"a": 1000, "b": 3000}
    assert cost(["a"], weights, work, "float32").bytes == 300
    assert cost(["a"], weights, work, "int16").bytes == 0
    assert cost(["b"], weights, work, "int16").share == 0.75
