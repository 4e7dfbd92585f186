"""QDQ graphs on LiteRT's integer kernels: one step of the grid apart at most, op by op, and nothing lost
where an op has no integer kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.quantize import calibration
from edgekit_converters.quantize.pipeline import for_target
from edgekit_converters.quantize.statistics import save
from edgekit_converters.targets.tflite.lower import SUPPORTED, Lowered, lower
from tests.converters.graphs import Array, GraphBuilder
from tests.converters.tflite_files import Build, answers, model_of, random, reference

IMAGE = (4, 8, 8)


def convolution(g: GraphBuilder) -> str:
    """Per-channel weights, a bias, a fused Relu, padding that needs a PAD at the zero point."""
    return g.op(
        "Relu", g.op("Conv", "x", g.weight(6, 4, 3, 3), g.weight(6), pads=[1, 1, 1, 1], strides=[2, 2])
    )


def depthwise(g: GraphBuilder) -> str:
    """Two outputs a channel, clipped at six."""
    y = g.op("Conv", "x", g.weight(8, 1, 3, 3), g.weight(8), pads=[1, 1, 1, 1], group=4)
    return g.op("Clip", y, g.constant(np.float32(0)), g.constant(np.float32(6)))


def product(g: GraphBuilder) -> str:
    """A matrix behind a flattened image: its rows follow the image's order."""
    y = g.op("Relu", g.op("Conv", "x", g.weight(4, 4, 1, 1)))
    return g.op("Gemm", g.op("Flatten", y), g.weight(256, 5), g.weight(5))


def residual(g: GraphBuilder) -> str:
    """A sum of two scales."""
    return g.op("Add", "x", g.op("Conv", "x", g.weight(4, 4, 1, 1), g.weight(4)))


def transposed(g: GraphBuilder) -> str:
    """TRANSPOSE_CONV, cut at the edges."""
    return g.op("ConvTranspose", "x", g.weight(4, 3, 3, 3), g.weight(3), strides=[2, 2], pads=[1, 0, 0, 1])


def joined(g: GraphBuilder) -> str:
    """Pools and a concatenation: one scale for all."""
    y = g.op("Conv", "x", g.weight(4, 4, 1, 1))
    pooled = [g.op(op, y, kernel_shape=[2, 2], strides=[2, 2]) for op in ("MaxPool", "AveragePool")]
    return g.op("Concat", *pooled, axis=1)


def classes(g: GraphBuilder) -> str:
    """A mean over space and a softmax, whose scale the runtime fixes."""
    y = g.op("Flatten", g.op("GlobalAveragePool", g.op("Conv", "x", g.weight(5, 4, 1, 1, scale=2.0))))
    return g.op("Softmax", y, axis=-1)


GRAPHS = [convolution, depthwise, product, residual, transposed, joined, classes]


def quantized(build: Build, precision: str, folder: Path) -> tuple[ir.Model, Array]:
    """The QDQ graph of `build`, and samples."""
    model, samples = hub.canonical(model_of(build, IMAGE)).model, random(40, *IMAGE, seed=2)
    save(folder / "statistics.npz", calibration.measure(model, {"x": samples}))
    rules = load_rules("tflite-2.3")
    made, _ = for_target(model, folder / "statistics.npz", rules, precision, supported=SUPPORTED)
    return made, samples


def file_of(model: ir.Model) -> Lowered:
    return lower(hub.legalise(model, SUPPORTED))


@pytest.mark.parametrize("build", GRAPHS, ids=lambda f: f.__name__)
def test_an_int8_op_is_at_most_one_step_from_its_qdq_graph(build: Build, tmp_path: Path) -> None:
    model, samples = quantized(build, "int8", tmp_path)
    file = file_of(model)
    assert file.facts["int8_op_ratio"] == 1.0, file.facts["ops"]
    quant = file.outputs[0].quant
    assert quant is not None
    assert file.facts["input_types"] == ["INT8"]
    assert file.facts["output_types"] == ["INT8"]
    wanted = np.concatenate([reference(hub.to_proto(model), samples[i : i + 1]) for i in range(8)])
    for kernels, found in answers(file, samples[:8]).items():
        # Chains of two rounding ops may be two steps apart with the kernels that round their own way.
        allowed = 1 if kernels == "xnnpack" else 2
        assert np.abs(found - wanted).max() / quant.scale[0] < allowed + 0.01, kernels


@pytest.mark.parametrize("build", [convolution, product, residual, classes], ids=lambda f: f.__name__)
def test_int16_activations_with_int8_weights_come_closer_than_int8(build: Build, tmp_path: Path) -> None:
    fine, samples = quantized(build, "int16x8", tmp_path)
    coarse, _ = quantized(build, "int8", tmp_path)
    wanted = reference(model_of(build, IMAGE), samples[:8])
    file = file_of(fine)
    assert file.facts["input_types"] == ["INT16"]
    errors = [
        np.abs(answers(item, samples[:8])["builtin"] - wanted).max() for item in (file, file_of(coarse))
    ]
    assert errors[0] < errors[1]


def test_a_tensor_goes_over_to_another_scale_in_one_integer_step(tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> str:
        wide = g.op("Conv", "x", g.weight(4, 4, 1, 1, scale=9.0))
        narrow = g.op("Conv", "x", g.weight(4, 4, 1, 1))
        y = g.op("Concat", g.op("Add", wide, narrow), narrow, axis=1)
        return g.op("Conv", y, g.weight(4, 8, 1, 1))

    model, samples = quantized(build, "int8", tmp_path)
    file = file_of(model)
    assert file.facts["int8_op_ratio"] == 1.0, file.facts["ops"]
    wanted = reference(hub.to_proto(model), samples[:1])
    quant = file.outputs[0].quant
    assert quant is not None
    for found in answers(file, samples[:1]).values():
        assert np.abs(found - wanted).max() / quant.scale[0] < 2.01


def test_an_op_without_an_integer_kernel_runs_in_float_between_conversions(tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Conv", "x", g.weight(4, 4, 1, 1))
        y = g.op("Sin", y)
        return g.op("Conv", y, g.weight(4, 4, 1, 1))

    model, samples = quantized(build, "int8", tmp_path)
    file = file_of(model)
    assert file.facts["ops"]["SIN"] == 1
    assert {"DEQUANTIZE", "QUANTIZE"} <= set(file.facts["ops"])
    wanted = reference(hub.to_proto(model), samples[:1])
    quant = file.outputs[0].quant
    assert quant is not None
    assert np.abs(answers(file, samples[:1])["xnnpack"] - wanted).max() / quant.scale[0] < 2.01


def test_an_average_over_uneven_windows_is_not_done_in_integers(tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Conv", "x", g.weight(4, 4, 1, 1))
        return g.op("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])

    model, samples = quantized(build, "int8", tmp_path)
    file = file_of(model)
    assert file.facts["int8_op_ratio"] < 1.0
    wanted = reference(hub.to_proto(model), samples[:1])
    quant = file.outputs[0].quant
    assert quant is not None
    assert np.abs(answers(file, samples[:1])["xnnpack"] - wanted).max() / quant.scale[0] < 1.01
