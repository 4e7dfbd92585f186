"""The one calibration: exact, bounded in memory, and refusing what it cannot describe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.errors import DataError
from edgekit_converters.npz import save_arrays
from edgekit_converters.quantize import calibration, running, sanity, statistics
from edgekit_converters.quantize.emulate import emulate
from edgekit_converters.quantize.running import float_tensors
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import canonical, known, residual, samples


def test_ends_channels_and_histograms_are_those_of_the_tensors() -> None:
    model, inputs = canonical(residual), samples()
    found = known(model, inputs)
    assert set(found.tensors) == {"x", *float_tensors(model)}
    for name, value in emulate(model, inputs, float_tensors(model)).items():
        tensor = found.tensors[name]
        np.testing.assert_allclose((tensor.low, tensor.high), (value.min(), value.max()), atol=1e-5)
        assert tensor.histogram.sum() == value.size
        if value.ndim == 4:
            np.testing.assert_allclose(tensor.peaks, np.abs(value).max(axis=(0, 2, 3)), atol=1e-5)
            np.testing.assert_allclose(tensor.means, value.mean(axis=(0, 2, 3)), atol=1e-4)


def test_a_small_memory_budget_gives_the_same_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = canonical(residual), samples()
    whole = known(model, inputs)
    monkeypatch.setattr(running, "BUDGET", 5_000)
    parts = list(running.chunks(model, float_tensors(model)))
    assert len(parts) > 3
    assert min(step for _, step in parts) < running.STEP
    little = known(model, inputs)
    for name, tensor in whole.tensors.items():
        other = little.tensors[name]
        np.testing.assert_allclose((other.low, other.high), (tensor.low, tensor.high), atol=1e-6)
        assert np.abs(other.histogram - tensor.histogram).sum() <= 0.01 * tensor.histogram.sum()


def test_channels_before_a_matrix_product_are_on_the_last_axis() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        return g.op("MatMul", g.op("Relu", "x"), g.weight(8, 2)), [3, 8, 2]

    model = canonical(build)
    relu = known(model, samples()).tensors[str(next(iter(model.graph)).outputs[0].name)]
    assert relu.axis == 3
    assert relu.peaks.shape == (8,)


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    found = known(canonical(residual), samples())
    statistics.save(tmp_path / "a.npz", found)
    again = statistics.load(tmp_path / "a.npz")
    assert (again.samples, set(again.tensors)) == (48, set(found.tensors))
    for name, tensor in found.tensors.items():
        assert (again.tensors[name].low, again.tensors[name].axis) == (tensor.low, tensor.axis)
        np.testing.assert_array_equal(again.tensors[name].histogram, tensor.histogram)


def test_any_other_npz_is_no_calibration(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", {"x": np.zeros(3)})
    with pytest.raises(DataError, match="not a stored calibration"):
        statistics.load(tmp_path / "a.npz")


def test_a_tensor_that_overflows_is_named() -> None:
    def build(g: GraphBuilder) -> tuple[str, list[int]]:
        return g.op("Relu", g.op("Exp", g.op("Mul", "x", g.constant(np.float32(1000))))), [3, 8, 8]

    with pytest.raises(DataError, match="is not finite") as caught:
        known(canonical(build), samples())
    assert caught.value.code == "not_finite"


def test_an_integer_input_is_not_calibrated(tmp_path: Path) -> None:
    value = ir.Value(name="i", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["N", 2]))
    cast = ir.Node("", "Cast", [value], {"to": ir.AttrInt64("to", 1)}, name="c")
    cast.outputs[0].name = "y"
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    graph = ir.Graph([value], cast.outputs, nodes=[cast], opset_imports={"": 21}, name="g")
    found = calibration.measure(ir.Model(graph, ir_version=10), {"i": np.ones((4, 2), np.int64)})
    assert set(found.tensors) == {"y"}


@pytest.mark.parametrize(("n", "codes"), [(1, ("one_sample",)), (5, ("too_few_samples",)), (48, ())])
def test_few_samples_are_told(n: int, codes: tuple[str, ...]) -> None:
    assert sanity.doubts(known(canonical(residual), samples(n))) == codes


def test_samples_that_are_all_zero_leave_most_tensors_still() -> None:
    found = known(canonical(residual), {"x": np.zeros((40, 3, 8, 8), np.float32)})
    flat = {name: item for name, item in found.tensors.items() if item.low == item.high}
    assert "x" in flat
    assert "wrong_scale" not in sanity.range_doubts(found, samples())


def test_evaluation_inputs_of_another_scale_are_told() -> None:
    found = known(canonical(residual), samples())
    assert sanity.range_doubts(found, samples(seed=1)) == ()
    assert sanity.range_doubts(found, {"x": samples()["x"] * 255}) == ("wrong_scale",)
    assert sanity.range_doubts(found, {"x": samples()["x"] * 2}) == ("range_left",)
    assert 0.0 < sanity.outside(found, {"x": samples()["x"] * 2})["x"] < 1.0
