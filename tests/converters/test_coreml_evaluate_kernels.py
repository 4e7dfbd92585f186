"""Kernels of the Core ML evaluator beside onnxruntime, beside the examples of MIL's reference, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgekit_converters.errors import Refusal
from tests.converters.graphs import Array
from tests.converters.mil_kernels import onnx_op, run
from tests.converters.mil_packages import drawn

IMAGE = drawn(2, 8, 4, 6)
TABLE = drawn(3, 4, 5)


def _close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    assert np.shape(found) == np.shape(wanted)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def _ints(*values: Any) -> Array:
    return np.array(values, np.int64)


def _refused(code: str, kind: str, **arguments: Any) -> None:
    with pytest.raises(Refusal) as caught:
        run(kind, **arguments)
    assert caught.value.code == code
    assert kind.split("_")[0] in str(caught.value)


def test_erf_is_exact_to_float32() -> None:
    x = np.linspace(-8, 8, 4001)
    _close(run("erf", x=x), [math.erf(item) for item in x], 1e-11)
    assert np.isnan(run("erf", x=np.array([np.nan], np.float32)))[0]


def test_batch_and_instance_and_local_response_norms_are_those_of_onnxruntime() -> None:
    scale, bias, mean = (drawn(8, seed=n) for n in (1, 2, 3))
    variance = np.abs(drawn(8, seed=4)) + 0.1
    wanted = onnx_op("BatchNormalization", IMAGE, scale, bias, mean, variance, epsilon=1e-3)[0]
    found = run(
        "batch_norm", x=IMAGE, mean=mean, variance=variance, gamma=scale, beta=bias, epsilon=np.float32(1e-3)
    )
    _close(found, wanted)
    wanted = onnx_op("InstanceNormalization", IMAGE, scale, bias, epsilon=1e-3)[0]
    _close(run("instance_norm", x=IMAGE, gamma=scale, beta=bias, epsilon=np.float32(1e-3)), wanted)
    wanted = onnx_op("LRN", IMAGE, size=5, alpha=0.3, beta=0.6, bias=1.5)[0]
    found = run(
        "local_response_norm",
        x=IMAGE,
        size=5,
        alpha=np.float32(0.3),
        beta=np.float32(0.6),
        k=np.float32(1.5),
    )
    _close(found, wanted)


@pytest.mark.parametrize(
    ("kind", "mode", "factor"),
    [("depth_to_space", "DCR", "block_size"), ("pixel_shuffle", "CRD", "upscale_factor")],
)
def test_channels_become_pixels_in_the_order_of_the_op(kind: str, mode: str, factor: str) -> None:
    _close(run(kind, x=IMAGE, **{factor: 2}), onnx_op("DepthToSpace", IMAGE, blocksize=2, mode=mode)[0])


def test_pixels_become_channels_and_back() -> None:
    _close(run("space_to_depth", x=IMAGE, block_size=2), onnx_op("SpaceToDepth", IMAGE, blocksize=2)[0])
    there = run("pixel_unshuffle", x=IMAGE, downscale_factor=2)
    _close(run("pixel_shuffle", x=there, upscale_factor=2), IMAGE)
    there = run("space_to_batch", x=IMAGE, block_shape=[2, 3], paddings=[[1, 1], [0, 0]])
    assert there.shape == (12, 8, 3, 2)
    _close(run("batch_to_space", x=there, block_shape=[2, 3], crops=[[1, 1], [0, 0]]), IMAGE)


@pytest.mark.parametrize("mode", ["add", "mul", "max", "min"])
def test_scatters_with_a_mode_are_those_of_onnxruntime(mode: str) -> None:
    indices = np.random.default_rng(2).integers(0, 4, (3, 6, 5))
    updates = drawn(3, 6, 5, seed=3)
    wanted = onnx_op("ScatterElements", TABLE, indices, updates, axis=1, reduction=mode)[0]
    _close(run("scatter_along_axis", data=TABLE, indices=indices, updates=updates, axis=1, mode=mode), wanted)
    rows = np.random.default_rng(3).integers(0, 3, (7, 2))
    parts = drawn(7, 5, seed=4)
    wanted = onnx_op("ScatterND", TABLE, rows, parts, reduction=mode)[0]
    _close(run("scatter_nd", data=TABLE, indices=rows, updates=parts, mode=mode), wanted)


def test_an_update_of_distinct_places_is_that_of_onnxruntime() -> None:
    rows, parts = _ints([2, 1], [0, 3], [1, 1]), drawn(3, 5, seed=4)
    wanted = onnx_op("ScatterND", TABLE, rows, parts)[0]
    _close(run("scatter_nd", data=TABLE, indices=rows, updates=parts, mode="update"), wanted)
    found = run("scatter", data=TABLE, indices=[3, 1], updates=TABLE[:, :2], axis=1, mode="sub")
    _close(found[:, [3, 1]], TABLE[:, [3, 1]] - TABLE[:, :2])


def test_what_the_definition_of_an_op_leaves_open_is_refused() -> None:
    _refused(
        "undefined_behaviour",
        "scatter",
        data=TABLE,
        indices=[1, 1],
        updates=TABLE[:, :2],
        axis=1,
        mode="update",
    )
    _refused("undefined_behaviour", "gather", x=TABLE, indices=[-1], axis=0, validate_indices=False)
    _refused("undefined_behaviour", "gather", x=TABLE, indices=[3], axis=0)
    _refused("undefined_behaviour", "cast", x=np.array([3e9], np.float32), dtype="int32")
    _refused("undefined_behaviour", "round", x=np.array([2.5], np.float32))
    _refused("undefined_behaviour", "real_div", x=np.array([-7]), y=np.array([2]))
    _refused("undefined_behaviour", "floor_div", x=np.array([7]), y=np.array([0]))
    _refused(
        "undefined_behaviour", "one_hot", indices=[4], one_hot_vector_size=4, axis=0, on_value=1, off_value=0
    )


def test_before_ios17_a_negative_index_counts_from_the_end() -> None:
    _close(run("gather", x=TABLE, indices=[-1], axis=0), TABLE[[-1]])


def test_gathers_with_batch_axes_are_those_of_onnxruntime() -> None:
    rows = np.random.default_rng(5).integers(0, 4, (3, 2, 1))
    _close(
        run("gather_nd", x=TABLE, indices=rows, batch_dims=1),
        onnx_op("GatherND", TABLE, rows, batch_dims=1)[0],
    )
    rows = np.random.default_rng(5).integers(0, 3, (6, 1))
    _close(run("gather_nd", x=TABLE, indices=rows), onnx_op("GatherND", TABLE, rows)[0])
    places = np.random.default_rng(6).integers(0, 4, (2, 3, 4))
    found = run("gather_along_axis", x=TABLE, indices=places, axis=1)
    _close(found, onnx_op("GatherElements", TABLE, places, axis=1)[0])


def test_cumulative_sums_in_all_directions_are_those_of_onnxruntime() -> None:
    for exclusive in (0, 1):
        for reverse in (0, 1):
            wanted = onnx_op("CumSum", TABLE, np.array(1), exclusive=exclusive, reverse=reverse)[0]
            _close(run("cumsum", x=TABLE, axis=1, exclusive=bool(exclusive), reverse=bool(reverse)), wanted)


def test_reversed_sequences_are_those_of_onnxruntime() -> None:
    lengths = _ints(4, 2, 1)
    wanted = onnx_op("ReverseSequence", TABLE, lengths, time_axis=1, batch_axis=0)[0]
    _close(run("reverse_sequence", x=TABLE, lengths=lengths, seq_axis=1, batch_axis=0), wanted)


_COORDINATES = {
    "STRICT_ALIGN_CORNERS": "align_corners",
    "UNALIGN_CORNERS": "half_pixel",
    "DEFAULT": "asymmetric",
}


@pytest.mark.parametrize("mode", list(_COORDINATES))
@pytest.mark.parametrize("size", [(9, 5), (2, 11), (4, 6)])
def test_bilinear_resizing_is_that_of_onnxruntime(mode: str, size: tuple[int, int]) -> None:
    sizes = np.array([2, 8, *size])
    wanted = onnx_op(
        "Resize", IMAGE, None, None, sizes, mode="linear", coordinate_transformation_mode=_COORDINATES[mode]
    )[0]
    arguments = {"x": IMAGE, "target_size_height": size[0], "target_size_width": size[1]}
    _close(run("resize_bilinear", **arguments, sampling_mode=mode), wanted)
    found = run(
        "resize",
        x=IMAGE,
        shape=np.array([0, *size]),
        resized_dims=2,
        interpolation_mode="LINEAR",
        sampling_mode=mode,
    )
    _close(found, wanted)


@pytest.mark.parametrize(
    ("mode", "size", "wanted"),
    [
        ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("OFFSET_CORNERS", 6, [1 / 12, 0.25, 5 / 12, 7 / 12, 0.75, 11 / 12]),
        ("DEFAULT", 5, [0, 0.4, 0.8, 1, 1]),
        ("UNALIGN_CORNERS", 5, [0, 0.1, 0.5, 0.9, 1]),
        ("STRICT_ALIGN_CORNERS", 1, [0]),
        ("ALIGN_CORNERS", 1, [0.5]),
    ],
)
def test_grids_are_those_of_the_reference(mode: str, size: int, wanted: list[float]) -> None:
    x = np.array([0, 1], np.float32).reshape(1, 1, 2)
    found = run("resize_bilinear", x=x, target_size_height=1, target_size_width=size, sampling_mode=mode)
    _close(found[0, 0], wanted)


def test_nearest_neighbours_repeat_and_a_tie_is_refused() -> None:
    x = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    found = run("upsample_nearest_neighbor", x=x, scale_factor_height=2, scale_factor_width=2)
    _close(found[0], [[0, 0, 1, 1, 2, 2]] * 2)
    _close(
        run("resize_nearest_neighbor", x=x, target_size_height=1, target_size_width=6)[0, 0],
        [0, 0, 1, 1, 2, 2],
    )
    _refused("undefined_behaviour", "resize_nearest_neighbor", x=x, target_size_height=1, target_size_width=4)
    shared = {"x": x, "shape": np.array([1, 6]), "resized_dims": 2, "interpolation_mode": "NEAREST_NEIGHBOR"}
    _close(run("resize", **shared, sampling_mode="UNALIGN_CORNERS")[0, 0], [0, 0, 1, 1, 2, 2])
    _refused("undefined_behaviour", "resize", **shared, sampling_mode="DEFAULT")


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("aligned", [0, 1])
def test_resampling_is_the_grid_sample_of_onnxruntime(padding: str, mode: str, aligned: int) -> None:
    points = drawn(2, 5, 3, 2, seed=9)
    wanted = onnx_op("GridSample", IMAGE, points, mode=mode, padding_mode=padding, align_corners=aligned)[0]
    # ONNX reflects about the edges unless corners are aligned; MIL has a mode for each.
    mapped = {"zeros": "constant", "border": "border", "reflection": "reflection" if aligned else "symmetric"}
    found = run(
        "resample",
        x=IMAGE,
        coordinates=points,
        sampling_mode="bilinear" if mode == "linear" else "nearest",
        padding_mode=mapped[padding],
        padding_value=np.float32(0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=bool(aligned),
    )
    _close(found, wanted, 1e-4)


def test_an_affine_transform_samples_where_the_matrix_says() -> None:
    """An expected output of Apple's own test of the op."""
    x = np.array([11, 22, 33, 44], np.float32).reshape(1, 1, 2, 2)
    found = run(
        "affine",
        x=x,
        transform_matrix=np.array([[-1.0, -2.0, -3.7, -1.0, 3.5, 1.2]], np.float32),
        output_height=3,
        output_width=3,
        sampling_mode="bilinear",
        padding_mode="constant",
        padding_value=np.float32(0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=True,
    )
    _close(found.reshape(-1), [10.7525, 2.5025, 0, 1.98, 0, 0, 0, 0, 0], 1e-4)


def test_a_crop_is_sampled_between_its_corners_and_padded_outside() -> None:
    """Expected outputs of Apple's own tests of the op."""
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)
    shared: dict[str, Any] = {"target_height": 2, "target_width": 2, "spatial_scale": np.float32(1)}
    shared |= {"sampling_mode": "ALIGN_CORNERS", "box_coordinate_mode": "CORNERS_HEIGHT_FIRST", "x": x}
    roi = np.array([[1, 1, 2, 2]], np.float32).reshape(1, 1, 4, 1, 1)
    found = run("crop_resize", roi=roi, normalized_coordinates=False, **shared)
    _close(found.reshape(-1), [6, 7, 10, 11])
    assert found.shape == (1, 1, 1, 2, 2)
    boxes = np.array([[0.1, 0.3, 1.3, 1.0], [0.0, 0.4, 0.6, 0.7]], np.float32)
    found = run(
        "crop_resize", boxes=boxes, box_indices=[0, 0], normalized_coordinates=True, pad_value=10.0, **shared
    )
    _close(found.reshape(2, 4), [[3.1, 5.2, 10, 10], [2.2, 3.1, 9.4, 10.3]], 1e-4)


def test_suppression_keeps_the_boxes_that_onnxruntime_keeps() -> None:
    rng = np.random.default_rng(11)
    boxes = np.concatenate([rng.random((1, 30, 2)), 0.1 + 0.3 * rng.random((1, 30, 2))], axis=-1).astype(
        np.float32
    )
    scores = rng.random((1, 1, 30)).astype(np.float32)
    limits = np.array(10), np.array([0.3], np.float32), np.array([0.2], np.float32)
    wanted = onnx_op("NonMaxSuppression", boxes, scores, *limits, center_point_box=1)[0][:, 2]
    shared = {"iou_threshold": np.float32(0.3), "max_boxes": 10, "per_class_suppression": False}
    old = run(
        "non_maximum_suppression",
        boxes=boxes,
        scores=scores.swapaxes(1, 2),
        score_threshold=np.float32(0.2),
        **shared,
    )
    count = int(old[3][0])
    assert count == len(wanted)
    assert list(old[2][0, :count]) == list(wanted)
    assert set(old[2][0, count:]) <= {-1}
    new = run("non_maximum_suppression", boxes=boxes.swapaxes(1, 2), scores=scores, **shared)
    assert new[0].shape == (1, 4, 10)
    assert new[2][0, 0] == wanted[0]


def test_attention_is_softmax_of_scaled_products_with_both_kinds_of_mask() -> None:
    q, k, v = drawn(2, 3, 5, 8), drawn(2, 3, 7, 8, seed=1), drawn(2, 3, 7, 4, seed=2)
    keep = np.tril(np.ones((5, 7), np.bool_))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(8)
    scores = np.where(keep, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    wanted = weights / weights.sum(-1, keepdims=True) @ v
    _close(run("scaled_dot_product_attention", query=q, key=k, value=v, attn_mask=keep), wanted)
    added = np.where(keep, 0, -1e9).astype(np.float32)
    _close(run("scaled_dot_product_attention", query=q, key=k, value=v, attn_mask=added), wanted)


def test_quantizing_rounds_half_to_even_and_saturates() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, 1000, -1000], np.float32)
    found = run("quantize", input=x, scale=np.float32(1), zero_point=np.int8(1), output_dtype="int8")
    assert list(found) == [1, 3, 3, 1, 127, -128]


def test_zeros_of_a_reshape_count_from_the_end() -> None:
    """The example of the reference."""
    assert run("reshape", x=np.zeros((2, 50)), shape=[1, 0, -1, 0]).shape == (1, 1, 2, 50)


def test_interleaved_concat_takes_turns() -> None:
    a, b = np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]])
    found = run("concat", values=(a, b), axis=0, interleave=True)
    assert found.tolist() == [[1, 2], [5, 6], [3, 4], [7, 8]]


def test_sliding_windows_and_reshape_like_and_band_part() -> None:
    assert run("sliding_windows", x=np.arange(8), axis=0, size=3, stride=2).tolist() == [
        [0, 1, 2],
        [2, 3, 4],
        [4, 5, 6],
    ]
    refs = (np.zeros((2, 3, 4)), np.zeros((1, 5, 6)))
    found = run(
        "reshape_like",
        x=np.zeros((6, 30)),
        ref_tensors=refs,
        begins=(0, 1),
        ends=(2, 0),
        end_masks=(False, True),
    )
    assert found.shape == (2, 3, 5, 6)
    _close(run("band_part", x=np.ones((3, 3)), lower=0, upper=-1), np.triu(np.ones((3, 3))))
