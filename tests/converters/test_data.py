from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.package import Tensor
from edgekit_converters.data import calibration_warnings, check_labels, read_dataset, synthetic

IMAGE = Tensor(name="image", dtype="float32", shape=(-1, 2, 3))
OTHER = Tensor(name="other", dtype="int32", shape=(-1, 4))
RANGES = {"image": (0.0, 1.0)}


def pack(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def good(n: int = 5) -> Any:
    return np.random.default_rng(0).random((n, 2, 3), np.float32)


def test_a_single_array_needs_no_matching_name(tmp_path: Path) -> None:
    data = read_dataset(pack(tmp_path, samples=good(), labels=np.arange(5)), (IMAGE,), RANGES)
    assert data.n == 5
    assert data.labels is not None


def test_arrays_may_carry_the_sources_own_names(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **{"left/a": good(), "right b": 0.5 * good(), "labels": np.arange(5)})
    inputs = [Tensor(name=name, dtype="float32", shape=(-1, 2, 3)) for name in ("left_a", "right_b")]
    data = read_dataset(path, inputs, {})
    np.testing.assert_array_equal(data.inputs["left_a"], good())
    np.testing.assert_array_equal(data.inputs["right_b"], 0.5 * good())


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"image": good().astype(np.float64)}, "wrong_dtype"),
        ({"image": (255 * good()).astype(np.uint8)}, "wrong_dtype"),
        ({"image": good().reshape(5, 6)}, "wrong_shape"),
        ({"image": good()[:, :, :2]}, "wrong_shape"),
        ({"image": good()[:0]}, "empty_data"),
        ({"image": np.float32(1)}, "empty_data"),
        ({"image": 255 * good()}, "wrong_scale"),
        ({"image": good(), "labels": np.arange(4)}, "wrong_length"),
        ({"image": good(), "labels": np.int64(1)}, "wrong_length"),
        ({"image": good(), "slice": np.array(["a"] * 6)}, "wrong_length"),
        ({"labels": np.arange(5)}, "missing_input"),
        ({"a": good(), "b": good()}, "missing_input"),
        ({}, "empty_data"),
    ],
)
def test_data_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, Any], code: str) -> None:
    path = pack(tmp_path, **arrays)
    with pytest.raises(DataError) as caught:
        read_dataset(path, (IMAGE,), RANGES)
    assert caught.value.code == code
    assert str(path) in str(caught.value.where)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_found_with_their_sample(tmp_path: Path, bad: float) -> None:
    samples = good()
    samples[3, 1, 1] = bad
    with pytest.raises(DataError, match="sample 3") as caught:
        read_dataset(pack(tmp_path, image=samples), (IMAGE,), {})
    assert caught.value.code == "not_finite"


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="never unpickled"):
        read_dataset(path, (IMAGE,), {})


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"hello", b"\x93NUMPY"])
def test_a_damaged_npz_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(data)
    with pytest.raises(DataError):
        read_dataset(path, (IMAGE,), {})


def test_a_single_array_or_text_called_npz_is_not_taken_for_python_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "single.npy", good())
    (tmp_path / "text.npz").write_text("hello")
    for name in ("single.npy", "text.npz"):
        with pytest.raises(DataError, match="not an npz archive"):
            read_dataset(tmp_path / name, (IMAGE,), RANGES)


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    path = pack(tmp_path, image=good(500))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError):
        read_dataset(path, (IMAGE,), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_dataset(tmp_path / "nowhere.npz", (IMAGE,), {})


def test_two_inputs_of_different_length_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path, image=good(), other=np.zeros((4, 4), np.int32))
    with pytest.raises(DataError, match="different numbers"):
        read_dataset(path, (IMAGE, OTHER), {})


def test_a_folder_of_npz_files_is_joined_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", image=good(2), labels=np.array([2, 3]))
    np.savez(tmp_path / "a.npz", image=good(1), labels=np.array([1]))
    data = read_dataset(tmp_path, (IMAGE,), RANGES)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 2, 3]


def test_a_folder_of_npy_files_is_read_by_input(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", good())
    np.save(tmp_path / "labels.npy", np.arange(5))
    assert read_dataset(tmp_path, (IMAGE,), RANGES).n == 5


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.npz"):
        read_dataset(tmp_path, (IMAGE,), {})


@pytest.mark.parametrize("labels", [np.array([0, 10]), np.array([-1, 0]), np.array([0.5, 1]), np.eye(2)])
def test_labels_must_be_class_numbers(tmp_path: Path, labels: Any) -> None:
    data = read_dataset(pack(tmp_path, image=good(2), labels=labels), (IMAGE,), RANGES)
    with pytest.raises(DataError):
        check_labels(data, 10)


def test_synthetic_inputs_are_seeded_and_in_range() -> None:
    first, second = (synthetic((IMAGE, OTHER), {"image": (-2.0, 3.0)}, 8, 1) for _ in range(2))
    assert np.array_equal(first.inputs["image"], second.inputs["image"])
    assert first.inputs["image"].min() < -1
    assert first.inputs["other"].dtype == np.int32


def test_suspicious_calibration_data_are_called_out(tmp_path: Path) -> None:
    def read(samples: Any) -> Any:
        return read_dataset(pack(tmp_path, image=samples), (IMAGE,), {})

    wide = read(good(100))
    assert calibration_warnings(wide, wide) == ()
    assert "constant_samples" in calibration_warnings(read(np.ones((40, 2, 3), np.float32)), None)
    assert "duplicate_samples" in calibration_warnings(read(np.repeat(good(2), 20, 0)), None)
    assert calibration_warnings(read(good(1)), None) == ("too_few_samples",)
    assert "scale_differs_from_validation" in calibration_warnings(read(255 * good(100)), wide)


def test_images_of_the_other_layout_are_told_how_to_turn(tmp_path: Path) -> None:
    spec = [Tensor(name="x", dtype="float32", shape=(-1, 3, 8, 6))]
    path = pack(tmp_path, x=np.zeros((5, 8, 6, 3), np.float32))
    with pytest.raises(DataError) as caught:
        read_dataset(path, spec, {})
    assert "transpose(0, 3, 1, 2)" in str(caught.value.remedy)
