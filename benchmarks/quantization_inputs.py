"""Inputs for the MLPerf Tiny models out of the little real data beside them: photographs, words, one machine.

None of it is the models' own test data, which is not at hand: figures on it compare two forms of one
model with each other and say nothing of accuracy. Patches of three photographs stand for images, one
second of speech (shifted, louder and softer, with noise) for keywords, windows of one spectrogram for
the anomaly detector.
"""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
CALIBRATION, TEST = 100, 200
_FRAME, _STEP, _MELS, _COEFFICIENTS = 480, 320, 40, 10


def images(zoo: Path, size: int, scale: float) -> tuple[Samples, Samples]:
    """Square patches, values times `scale`."""
    photographs = [bitmap(zoo / "mobilenet" / f"{name}.bmp") for name in ("cat", "bird", "sunflower")]
    made = [
        np.stack([_patch(photographs[i % 3], size, random) for i in range(count)]).astype(np.float32) * scale
        for count, random in (
            (CALIBRATION, np.random.default_rng(0)),
            (TEST, np.random.default_rng(1)),
        )
    ]
    return made[0].astype(np.float32), made[1].astype(np.float32)


def spectrogram(zoo: Path) -> tuple[Samples, Samples]:
    """Five stacked frames an input, every second one for calibration."""
    (path,) = (zoo / "anomaly_detection").glob("*.bin")
    frames = np.fromfile(path, np.float32).reshape(-1, 128)
    windows = np.stack([frames[i : i + 5].reshape(-1) for i in range(len(frames) - 4)])
    return windows[0::2], windows[1::2]


def words(zoo: Path) -> tuple[Samples, Samples]:
    """Ten cepstral coefficients of 49 frames, as the keyword model was trained on."""
    sounds = [_sound(path) for path in sorted((zoo / "micro_speech").glob("*.wav"))]
    made = []
    for count, seed in ((CALIBRATION, 0), (TEST, 1)):
        random = np.random.default_rng(seed)
        made.append(np.stack([_cepstrum(_varied(sounds[i % 3], random)) for i in range(count)]))
    return made[0], made[1]


MODELS: Mapping[str, tuple[str, str, Callable[[Path], tuple[Samples, Samples]]]] = {
    "resnet": (
        "image_classification/pretrainedResnet.h5",
        "image_classification/pretrainedResnet_quant.tflite",
        lambda zoo: images(zoo, 32, 1.0),
    ),
    "vww": (
        "visual_wake_words/vww_96.h5",
        "visual_wake_words/vww_96_int8.tflite",
        lambda zoo: images(zoo, 96, 1 / 255),
    ),
    "kws": ("keyword_spotting/kws_ref_model", "keyword_spotting/kws_ref_model.tflite", words),
    "ad01": ("anomaly_detection/ad01.h5", "anomaly_detection/ad01_int8.tflite", spectrogram),
}
"""Source, reference int8 file and (calibration, test) inputs by name."""


def bitmap(path: Path) -> Any:
    """The picture of an uncompressed bitmap, (height, width, 3) bytes."""
    data = path.read_bytes()
    (offset,) = struct.unpack("<I", data[10:14])
    width, height = struct.unpack("<ii", data[18:26])
    depth = struct.unpack("<H", data[28:30])[0] // 8
    stride = (width * depth + 3) // 4 * 4
    rows = np.frombuffer(data[offset:], np.uint8)[: stride * abs(height)].reshape(abs(height), stride)
    pixels = rows[:, : width * depth].reshape(abs(height), width, depth)[..., 2::-1]
    return pixels[::-1] if height > 0 else pixels


def _patch(image: Any, size: int, random: np.random.Generator) -> Any:
    side = int(random.integers(size, min(image.shape[:2]) + 1))
    top, left = (int(random.integers(0, n - side + 1)) for n in image.shape[:2])
    places = ((np.arange(size) + 0.5) * side / size).astype(int)
    patch = image[top : top + side, left : left + side][places][:, places]
    return patch[:, ::-1] if random.random() < 0.5 else patch


def _sound(path: Path) -> Any:
    with wave.open(str(path)) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    sound = np.zeros(16_000)
    sound[: len(data[:16_000])] = data[:16_000] / 32768
    return sound


def _varied(sound: Any, random: np.random.Generator) -> Any:
    shifted = np.roll(sound, int(random.integers(-1600, 1601)))
    noise = random.standard_normal(len(sound)) * random.uniform(0, 0.01)
    return shifted * random.uniform(0.5, 1.5) + noise


def _cepstrum(sound: Any) -> Samples:
    count = 1 + (len(sound) - _FRAME) // _STEP
    frames = np.stack([sound[i * _STEP : i * _STEP + _FRAME] for i in range(count)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    power = np.abs(np.fft.rfft(frames * window, 512))
    mel = np.log(power @ _mel_matrix() + 1e-6)
    n = np.arange(_MELS)
    cosines = np.cos(np.pi / _MELS * np.outer(n + 0.5, np.arange(_COEFFICIENTS)))
    found = (mel @ cosines) * np.sqrt(2.0 / _MELS)
    coefficients: Samples = found.astype(np.float32)[:, :, None]
    return coefficients


def _mel_matrix() -> Any:
    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    bins = mel(np.linspace(0, 8000, 257))[:, None]
    edges = np.linspace(mel(20.0), mel(4000.0), _MELS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
