"""Real trained models of the zoo beside the checkout: Keras-2 files, old ONNX, TF1 SavedModel."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.package import load_package
from tests.converters.conftest import edgekit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HOST = ("--profile", "x86-64-litert", "--profile", "x86-64-onnx")


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


def run(source: Path, cache: Path, out: Path, *options: Any, check: tuple[int, ...] = (0,)) -> dict[str, Any]:
    done = edgekit("convert", source, *HOST, *options, "--out", out, "--json", cache=cache, check=check)
    load_package(out)
    result: dict[str, Any] = json.loads(done.out)
    return result


def test_the_keras_2_resnet_converts_to_every_precision(zoo: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the Keras frontend needs the extra [tf]")
    samples = photos(zoo, 32, 300)
    np.savez(tmp_path / "cal.npz", samples[:100])
    np.savez(tmp_path / "val.npz", samples[100:])
    data = ("--calibration", tmp_path / "cal.npz", "--validation", tmp_path / "val.npz")
    source = zoo / "image_classification" / "pretrainedResnet.h5"
    options = (*data, "--precision", "all", "--allow-breach")
    result = run(source, cache, tmp_path / "out", *options)
    figures = {item["id"]: item for item in result["variants"]}
    assert len(figures) == 6
    for name, item in figures.items():
        (error,) = item["verification"]["metrics"]["outputs"].values()
        if item["precision"] in ("fp32", "fp16"):
            assert item["verification"]["verdict"] == "pass", name
        assert error["argmax_agreement"] >= 0.85, name
    size = {
        item["precision"]: item["files"][0]["bytes"]
        for item in result["variants"]
        if item["target"] == "tflite"
    }
    reference = (zoo / "image_classification" / "pretrainedResnet_quant.tflite").stat().st_size
    assert size["int8"] <= 1.05 * reference
    assert size["int8"] < 0.35 * size["fp32"]


def test_the_keras_2_autoencoder_converts_to_every_precision(zoo: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the Keras frontend needs the extra [tf]")
    samples = spectrogram(zoo)
    np.savez(tmp_path / "cal.npz", samples[::2])
    np.savez(tmp_path / "val.npz", samples[1::2])
    data = ("--calibration", tmp_path / "cal.npz", "--validation", tmp_path / "val.npz")
    source = zoo / "anomaly_detection" / "ad01.h5"
    result = run(source, cache, tmp_path / "out", *data, "--precision", "all")
    for item in result["variants"]:
        assert item["verification"]["verdict"] == "pass", item["id"]
        (error,) = item["verification"]["metrics"]["outputs"].values()
        assert error["snr_db"] >= 20


def test_an_old_onnx_file_reaches_tflite_through_the_hub(zoo: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="this route needs the extra [tf]")
    result = run(zoo / "mnist" / "mnist.onnx", cache, tmp_path / "out", "--precision", "fp32")
    assert {item["target"] for item in result["variants"]} == {"tflite", "onnx"}
    for item in result["variants"]:
        (error,) = item["verification"]["metrics"]["outputs"].values()
        assert error["max_relative"] < 1e-4


def test_a_tf1_saved_model_is_refused_with_a_remedy(zoo: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the SavedModel frontend needs the extra [tf]")
    source = zoo / "keyword_spotting" / "kws_ref_model"
    done = edgekit("convert", source, *HOST, "--out", tmp_path / "out", cache=cache, check=(2,))
    assert "TF1-style" in done.err
    assert not (tmp_path / "out").exists()
