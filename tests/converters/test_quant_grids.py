"""Grids, ranges and groups: the arithmetic that every integer depends on."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit_converters.quantize import grids
from edgekit_converters.quantize.grids import Grid, activation_grid
from edgekit_converters.quantize.groups import Groups, Kind
from edgekit_converters.quantize.ranges import METHODS, Ranges, minmax, mse, percentile
from edgekit_converters.quantize.statistics import BINS, Statistics, Tensor

INT8 = Kind(type="int8")


def tensor(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    low, high = float(values.min()), float(values.max())
    return Tensor(low=low, high=high, histogram=np.histogram(values, BINS, (low, high))[0])


@pytest.mark.parametrize(
    "span", [(-1.3, 2.7), (0.0, 6.0), (0.4, 5.0), (-9.0, -1.0), (0.0, 0.0), (-1e-12, 0.0)]
)
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16"])
def test_zero_is_always_exactly_on_the_grid(span: tuple[float, float], kind: str) -> None:
    grid = activation_grid(*span, kind)
    least, most = grids.LIMITS[kind]
    assert least <= grid.zero_point <= most
    assert grid.scale == float(np.float32(grid.scale)) > 0
    assert grid.low <= min(span[0], 0) + grid.scale
    assert grid.high >= max(span[1], 0) - grid.scale


@pytest.mark.parametrize("kind", ["int8", "int32"])
def test_a_single_number_without_axes_is_quantized_like_any(kind: str) -> None:
    whole = grids.quantize(np.array(0.5, np.float32), np.float32(0.25), kind, zero_point=1)
    assert (whole.shape, whole.dtype, int(whole)) == ((), np.dtype(kind), 3)
    back = grids.dequantize(whole, np.float32(0.25), zero_point=1)
    assert (float(back), back.dtype) == (0.5, np.float32)


def test_a_symmetric_grid_has_no_zero_point_and_covers_both_ends() -> None:
    grid = activation_grid(-3.0, 1.0, "int8", symmetric=True)
    assert (grid.zero_point, round(grid.scale * 127, 5)) == (0, 3.0)


def test_a_power_of_two_scale_is_rounded_up_never_down() -> None:
    grid = activation_grid(-3.0, 1.0, "int8", power_of_two=True)
    assert grid.scale == 2.0**-5
    assert grid.scale * 127 >= 3.0


def test_rounding_is_half_to_even_and_saturates_as_onnx_says() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, 1e6, -1e6], np.float32)
    found = grids.quantize(values, 1.0, "int8")
    assert found.tolist() == [0, 2, 2, 0, 127, -128]


def test_a_bias_that_32_bits_cannot_hold_makes_its_channel_coarser() -> None:
    scales = grids.weight_scales(np.array([[1e-4], [1.0]]), 0)
    roomy = grids.room_for_bias(scales, np.array([1e4, 1.0]), 1e-4)
    assert roomy[1] == scales[1]
    assert 1e4 / (1e-4 * roomy[0]) <= 2**30


def test_a_channel_of_zeros_still_says_its_bias() -> None:
    scales = grids.weight_scales(np.zeros((1, 4)), 0)
    roomy = grids.room_for_bias(scales, np.array([0.75]), 0.01)
    step = np.float32(0.01) * roomy
    assert abs(float(grids.quantize(np.array([0.75]), step, "int32")[0] * step[0]) - 0.75) < 1e-5


def test_minmax_never_clips_and_the_others_stay_within_it() -> None:
    values = np.concatenate([np.random.default_rng(0).standard_normal(100_000), [40.0]])
    found = Statistics(tensors={"t": tensor(values)})
    assert Ranges(found, "minmax")["t"] == (values.min(), 40.0)
    for method in METHODS:
        low, high = Ranges(found, method)["t"]
        assert values.min() - 1e-9 <= low <= 0 <= high <= 40.0


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_an_outlier_is_clipped_and_the_rest_is_not(method: str) -> None:
    """With as many bins as levels nothing would ever be clipped."""
    values = np.concatenate([np.random.default_rng(0).standard_normal(1_000_000), [40.0]])
    low, high = METHODS[method](tensor(values))
    assert high < 20
    assert low < -2


def test_mse_keeps_everything_of_a_flat_distribution() -> None:
    flat = tensor(np.linspace(-1, 1, 100_000))
    assert mse(flat) == minmax(flat)


def test_percentile_cuts_a_share_off_both_ends() -> None:
    low, high = percentile(tensor(np.linspace(0, 1, 100_000)), 0.1)
    assert abs(low - 0.1) < 0.01
    assert abs(high - 0.9) < 0.01


def test_the_zeros_of_a_relu_do_not_make_entropy_clip_the_rest() -> None:
    values = np.maximum(np.random.default_rng(0).standard_normal(200_000), 0)
    assert METHODS["entropy"](tensor(values))[1] > 2.5


def test_a_tensor_without_histogram_keeps_its_ends() -> None:
    known = Statistics(tensors={"t": Tensor(low=-1.0, high=2.0)})
    assert Ranges(known, "entropy")["t"] == (-1.0, 2.0)


def test_joined_tensors_share_the_union_of_their_ranges() -> None:
    groups = Groups()
    groups.add("a", INT8, (-1.0, 0.0), None)
    groups.add("b", INT8, (0.0, 3.0), None)
    assert groups.join("a", "b")
    assert groups.grid("a") == groups.grid("b") == activation_grid(-1.0, 3.0, "int8")


def test_two_fixed_scales_are_never_joined() -> None:
    groups = Groups()
    groups.add("softmax", INT8, (0.0, 1.0), Grid(type="int8", scale=1 / 256, zero_point=-128))
    groups.add("tanh", INT8, (-1.0, 1.0), Grid(type="int8", scale=1 / 128))
    groups.add("free", INT8, (0.0, 1.0), None)
    assert not groups.join("softmax", "tanh")
    assert groups.join("free", "softmax")
    assert groups.grid("free").scale == 1 / 256


def test_tensors_of_two_types_are_never_joined() -> None:
    groups = Groups()
    groups.add("a", INT8, (0.0, 1.0), None)
    groups.add("b", Kind(type="int16", symmetric=True), (0.0, 1.0), None)
    assert not groups.join("a", "b")
