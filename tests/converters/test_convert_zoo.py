"""Real trained models of the zoo beside the checkout: Keras-2 files, old ONNX, TF1 SavedModel."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.package import Manifest, Variant, load_package
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from tests.conftest import require_package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HOST = ("x86-64-litert", "x86-64-onnx")


def bitmap(path: Path) -> Any:
    """An uncompressed 24-bit BMP as (height, width, 3) RGB."""
    data = path.read_bytes()
    start, width, height = (struct.unpack_from("<i", data, place)[0] for place in (10, 18, 22))
    stride = (3 * width + 3) // 4 * 4
    rows = np.frombuffer(data, np.uint8, stride * height, start).reshape(height, stride)
    return rows[::-1, : 3 * width].reshape(height, width, 3)[:, :, ::-1]


def photos(zoo: Path, size: int, n: int) -> Any:
    """`n` patches of the zoo's photographs, float32 within [0, 255]."""
    random = np.random.default_rng(0)
    pictures = [bitmap(zoo / "mobilenet" / f"{name}.bmp") for name in ("cat", "bird", "sunflower")]
    found = []
    for index in range(n):
        picture = pictures[index % 3]
        y, x = (int(random.integers(0, picture.shape[axis] - size)) for axis in (0, 1))
        found.append(picture[y : y + size, x : x + size])
    return np.stack(found).astype(np.float32)


def spectrogram(zoo: Path) -> Any:
    """Inputs of the anomaly model from its real spectrogram: five frames of 128 bands each."""
    raw = np.fromfile(zoo / "anomaly_detection" / "normal_id_01_00000000_hist_librosa.bin", np.float32)
    frames = raw.reshape(200, 128)
    return np.stack([frames[i : i + 5].ravel() for i in range(196)])


def run(workers: Pool, source: Path, cache: Path, out: Path, **options: Any) -> Manifest:
    request = Request(source=source, profiles=HOST, cache=cache, out=out, **options)
    manifest = convert(request, pool=workers).manifest
    assert load_package(out).digest == manifest.digest
    return manifest


def only_error(variant: Variant) -> Any:
    (error,) = variant.verification.metrics["outputs"].values()
    return error


def test_the_keras_2_resnet_converts_to_every_precision(
    zoo: Path, workers: Pool, cache: Path, tmp_path: Path
) -> None:
    require_package("tensorflow", "tf")
    samples = photos(zoo, 32, 200)
    np.savez(tmp_path / "cal.npz", samples[:100])
    np.savez(tmp_path / "val.npz", samples[100:])
    manifest = run(
        workers,
        zoo / "image_classification" / "pretrainedResnet.h5",
        cache,
        tmp_path / "out",
        calibration=tmp_path / "cal.npz",
        validation=tmp_path / "val.npz",
        precisions=("all",),
        allow_breach=True,
    )
    precisions = {item.precision for item in manifest.variants if item.target == "tflite"}
    assert precisions == {"fp32", "fp16", "dynamic", "int8", "int16x8", "int4"}
    for variant in manifest.variants:
        if variant.precision in ("fp32", "fp16"):
            assert variant.verification.verdict == "pass", variant.id
        # Photographs of other things than CIFAR-10's: agreement with the source, not accuracy.
        least = 0.6 if variant.precision == "int4" else 0.85
        assert only_error(variant)["argmax_agreement"] >= least, variant.id
    reference = (zoo / "image_classification" / "pretrainedResnet_quant.tflite").stat().st_size
    int8, fp32 = (manifest.variant(f"x86-64-litert-tflite-{item}").size for item in ("int8", "fp32"))
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    rescue = report["variants"]["x86-64-litert-tflite-int8"]["facts"]["quantization"].get("rescue")
    # A layer that was moved to float for the verdict's sake costs its bytes, and the report says so.
    assert int8 <= reference + (rescue["more_bytes"] if rescue else 0)
    assert int8 < 0.35 * fp32


def test_the_keras_2_autoencoder_converts_to_every_precision(
    zoo: Path, workers: Pool, cache: Path, tmp_path: Path
) -> None:
    require_package("tensorflow", "tf")
    samples = spectrogram(zoo)
    np.savez(tmp_path / "cal.npz", samples[::2])
    np.savez(tmp_path / "val.npz", samples[1::2])
    manifest = run(
        workers,
        zoo / "anomaly_detection" / "ad01.h5",
        cache,
        tmp_path / "out",
        calibration=tmp_path / "cal.npz",
        validation=tmp_path / "val.npz",
        precisions=("all",),
    )
    for variant in manifest.variants:
        assert variant.verification.verdict == "pass", variant.id
        assert only_error(variant)["snr_db"] >= 20


def test_an_old_onnx_file_reaches_tflite_through_the_hub(
    zoo: Path, workers: Pool, cache: Path, tmp_path: Path
) -> None:
    require_package("tensorflow", "tf")
    manifest = run(workers, zoo / "mnist" / "mnist.onnx", cache, tmp_path / "out", precisions=("fp32",))
    assert {item.target for item in manifest.variants} == {"tflite", "onnx"}
    assert all(only_error(item)["max_relative"] < 1e-4 for item in manifest.variants)


def test_a_tf1_saved_model_converts(zoo: Path, workers: Pool, cache: Path, tmp_path: Path) -> None:
    require_package("tensorflow", "tf")
    source = zoo / "keyword_spotting" / "kws_ref_model"
    manifest = run(workers, source, cache, tmp_path / "out", precisions=("fp32",))
    assert {item.target for item in manifest.variants} == {"tflite", "onnx"}
    assert all(only_error(item)["max_relative"] < 1e-4 for item in manifest.variants)
