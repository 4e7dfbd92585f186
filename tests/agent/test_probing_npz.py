"""Probes on a loaded candidate, and hostile probe files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import DocumentError, RefusedError
from edgekit_agent.npz import read_npz
from edgekit_agent.probing import run_package_probes, run_truth_probes
from edgekit_agent.runtimes.litert import LiteRtRuntime
from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.host import Candidate, ModelHost
from tests.agent.models import LABELS, WEIGHTS, classes_of, installed, samples, with_probe
from tests.conftest import FrozenClock

INPUTS = samples(9)


@pytest.fixture
def host(clock: FrozenClock) -> Iterator[ModelHost]:
    made = ModelHost({"onnxruntime": OnnxRuntime(), "litert": LiteRtRuntime()}, threads=1, clock=clock)
    yield made
    made.close()


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "probes.npz"
    np.savez(path, **arrays)
    return path


def package_candidate(host: ModelHost, folder: Path, path: Path, **options: Any) -> Candidate:
    probe = {key: options.pop(key) for key in ("n", "atol", "agreement") if key in options}
    return host.prepare(with_probe(installed(folder, **options), path, **{"n": 9, **probe}))


@pytest.mark.parametrize("kind", ["onnx", "tflite", "tflite-int8"])
def test_package_probes_pass_where_the_device_computes_the_same(
    host: ModelHost, tmp_path: Path, kind: str
) -> None:
    path = npz(tmp_path, **{"in:x": INPUTS, "out:y": INPUTS @ WEIGHTS})
    outcome = run_package_probes(package_candidate(host, tmp_path, path, kind=kind, atol=0.26), path)
    assert (outcome.kind, outcome.n, outcome.right, outcome.passed) == ("package", 9, "1" * 9, True)
    assert outcome.detail["max_abs"] <= 0.26
    assert outcome.detail["argmax_agreement"] == 1.0


def test_one_probe_beyond_the_tolerance_fails_and_is_named_by_its_bit(
    host: ModelHost, tmp_path: Path
) -> None:
    expected = INPUTS @ WEIGHTS
    expected[4, 1] += 0.5
    path = npz(tmp_path, **{"in:x": INPUTS, "out:y": expected})
    outcome = run_package_probes(package_candidate(host, tmp_path, path), path)
    assert (outcome.right, outcome.passed) == ("111101111", False)


def test_argmax_disagreement_fails_even_within_the_tolerance(host: ModelHost, tmp_path: Path) -> None:
    path = npz(tmp_path, **{"in:x": INPUTS, "out:y": -(INPUTS @ WEIGHTS)})
    outcome = run_package_probes(package_candidate(host, tmp_path, path, atol=100.0), path)
    assert outcome.right == "1" * 9
    assert not outcome.passed


def test_a_model_that_answers_nan_fails_its_package_probes(host: ModelHost, tmp_path: Path) -> None:
    path = npz(tmp_path, **{"in:x": INPUTS, "out:y": INPUTS @ WEIGHTS})
    candidate = package_candidate(host, tmp_path, path, gain=-1.0, nan=True, atol=1e9)
    outcome = run_package_probes(candidate, path)
    assert not outcome.passed


@pytest.mark.parametrize("as_text", [True, False])
def test_truth_probes_compare_with_the_labels_item_by_item(
    host: ModelHost, tmp_path: Path, as_text: bool
) -> None:
    truth = classes_of(INPUTS)
    truth[2] = (truth[2] + 1) % 3
    labels = np.array([LABELS[number] for number in truth]) if as_text else np.array(truth)
    path = npz(tmp_path, x=INPUTS, labels=labels, slice=np.zeros(9))
    candidate = host.prepare(installed(tmp_path))
    outcome = run_truth_probes(candidate, path, 0.88)
    assert (outcome.kind, outcome.right, outcome.passed) == ("truth", "110111111", True)
    assert outcome.accuracy == pytest.approx(8 / 9)
    assert not run_truth_probes(candidate, path, 0.9).passed


def test_truth_probes_go_through_preprocessing(host: ModelHost, tmp_path: Path) -> None:
    changes = {"input": {"preprocess": {"scale": 1 / 255}}}
    candidate = host.prepare(installed(tmp_path, contract_changes=changes))
    path = npz(tmp_path, x=(INPUTS * 255).astype(np.uint8), labels=np.array(classes_of(INPUTS)))
    assert run_truth_probes(candidate, path, 1.0).passed


def test_a_model_that_is_wrong_in_the_field_misses_its_truth_probes(host: ModelHost, tmp_path: Path) -> None:
    candidate = host.prepare(installed(tmp_path, gain=-1.0))
    path = npz(tmp_path, x=INPUTS, labels=np.array(classes_of(INPUTS)))
    outcome = run_truth_probes(candidate, path, 0.9)
    assert not outcome.passed
    assert outcome.right.count("1") == 0


def test_items_the_model_fails_on_are_wrong_not_fatal(host: ModelHost, tmp_path: Path) -> None:
    candidate = host.prepare(installed(tmp_path, gain=-1.0, nan=True))
    path = npz(tmp_path, x=INPUTS, labels=np.array(classes_of(INPUTS)))
    outcome = run_truth_probes(candidate, path, 0.9)
    assert outcome.detail["failed"] == 9


def test_probes_are_not_counted_as_traffic(host: ModelHost, tmp_path: Path) -> None:
    candidate = host.prepare(installed(tmp_path))
    run_truth_probes(candidate, npz(tmp_path, x=INPUTS, labels=np.array(classes_of(INPUTS))), 0.9)
    host.switch("animals", candidate)
    assert host.collect()[0].requests == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": INPUTS}, "labels"),
        ({"labels": np.zeros(9, int)}, "'x'"),
        ({"z": INPUTS, "labels": np.zeros(9, int)}, "'z'"),
        ({"x": INPUTS[:, :2], "labels": np.zeros(9, int)}, "shape"),
        ({"x": INPUTS, "labels": np.zeros(8, int)}, "same number"),
        ({"x": INPUTS[:0], "labels": np.zeros(0, int)}, "same number"),
        ({"x": INPUTS, "labels": np.full(9, 3)}, "0…2"),
        ({"x": INPUTS, "labels": np.full(9, -1)}, "0…2"),
        ({"x": INPUTS, "labels": np.full(9, 0.5)}, "class numbers"),
        ({"x": INPUTS, "labels": np.full(9, "dog")}, "dog"),
        ({"x": INPUTS, "labels": np.zeros((9, 1), int)}, "one label"),
        ({"x": np.full((9, 4), np.nan, np.float32), "labels": np.zeros(9, int)}, "NaN"),
        ({"x": np.full((9, 4), "a"), "labels": np.zeros(9, int)}, "numbers"),
        ({"x": np.float32(1), "labels": np.zeros(9, int)}, "same number"),
    ],
)
def test_truth_probes_that_do_not_fit_are_refused(
    host: ModelHost, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    candidate = host.prepare(installed(tmp_path))
    with pytest.raises(DocumentError, match=message):
        run_truth_probes(candidate, npz(tmp_path, **arrays), 0.9)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"in:x": INPUTS}, "out:y"),
        ({"in:x": INPUTS, "out:y": np.zeros((9, 3)), "out:z": np.zeros((9, 3))}, "out:z"),
        ({"in:x": INPUTS[:8], "out:y": np.zeros((8, 3))}, "manifest says 9"),
        ({"in:x": INPUTS, "out:y": np.zeros((9, 4))}, "shape"),
    ],
)
def test_package_probes_that_do_not_fit_are_refused(
    host: ModelHost, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    path = npz(tmp_path, **arrays)
    with pytest.raises(DocumentError, match=message):
        run_package_probes(package_candidate(host, tmp_path, path), path)


def test_a_probe_the_model_cannot_compute_is_a_refusal(host: ModelHost, tmp_path: Path) -> None:
    path = npz(tmp_path, **{"in:x": INPUTS[:, :2], "out:y": np.zeros((9, 3))})
    with pytest.raises(RefusedError, match="probe 0"):
        run_package_probes(package_candidate(host, tmp_path, path), path)


def test_a_variant_without_probes_is_a_refusal(host: ModelHost, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no probes"):
        run_package_probes(host.prepare(installed(tmp_path)), tmp_path / "none.npz")


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_a_header_that_claims_terabytes_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", x=header("(1000000000000, 4)") + b"\0" * 64)
    with pytest.raises(DocumentError, match="does not fit its size"):
        read_npz(path)


def test_a_zip_bomb_is_refused_by_its_claimed_size(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", x=header("(3000000,)") + b"\0" * 12_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(DocumentError, match="allowed"):
        read_npz(path, max_bytes=1 << 20)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    zipped(path, x=buffer.getvalue())
    with pytest.raises(DocumentError, match="dtype object"):
        read_npz(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"PK\x03\x04garbage",
        lambda data: data[: len(data) // 2],
        lambda data: data[:60] + bytes(60) + data[120:],
        lambda data: data.replace(b"NUMPY", b"MUMPY"),
    ],
)
def test_a_damaged_file_is_a_document_error(tmp_path: Path, damage: Any) -> None:
    path = npz(tmp_path, x=INPUTS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DocumentError):
        read_npz(path)


def test_members_that_are_no_arrays_or_too_many_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run.py", "print()")
    with pytest.raises(DocumentError, match=r"run\.py"):
        read_npz(path)
    zipped(path, **{f"x{i}": header("(0,)") for i in range(300)})
    with pytest.raises(DocumentError, match="256 arrays"):
        read_npz(path)


def test_a_missing_file_is_a_document_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError):
        read_npz(tmp_path / "none.npz")
