"""Train a small Keras CNN on scikit-learn's handwritten digits and write everything edgekit needs.

    python examples/digits/train.py --out digits            # the good model
    python examples/digits/train.py --out wrong --inverted --version 2.0.0

Writes into the out folder: ``model.keras``, ``model.toml`` (the contract), ``calibration.npz`` and
``validation.npz`` (as the model's author sees the world, after preprocessing), ``probes.npz`` (true
digits with labels, for a slot's ground-truth probes) and ``field.npz`` (true digits that a device will
meet). The last two hold raw grey values 0 to 16, as a client sends them; the contract's preprocessing
brings them to 0 to 1. No sample of validation, probes or field is ever trained on.

``--inverted`` trains, calibrates and validates on inverted images (ink 0, paper 1): such a model
converts cleanly and passes every check the author has, and is wrong in the field.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 7
GREY_LEVELS = 16.0
Images = NDArray[np.float32]
Labels = NDArray[np.int64]

CONTRACT = """\
[model]
name = "{name}"
version = "{version}"
group = "digits"
origin = "bespoke"
owner = "edgekit example"
licence = "Apache-2.0"
framework = "keras"
description = "Handwritten digits, 8x8 grey values; trained on {world} images"

[model.training_data]
snapshot = "scikit-learn load_digits, {train} of 1797 images, seed {seed}"

[[inputs]]
name = "image"
dtype = "float32"
shape = [-1, 8, 8, 1]
layout = "NHWC"
meaning = "image"
range = [0.0, 1.0]

[inputs.preprocess]
scale = 0.0625
color = "gray"

[[outputs]]
name = "probabilities"
dtype = "float32"
shape = [-1, 10]
task = "classification"
activation = "softmax"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

[data]
calibration = "calibration.npz"
validation = "validation.npz"

[[metrics]]
name = "top1"
tolerance = 0.01

[serving]
confidence_threshold = 0.5
fallback = "ask a person"
latency_budget_ms = 20.0

[drift]
bins = 10
"""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Disjoint parts of the data set: images float32 (n, 8, 8, 1) within [0, 1], labels int64 (n,)."""

    train: tuple[Images, Labels]
    validation: tuple[Images, Labels]
    probes: tuple[Images, Labels]
    field: tuple[Images, Labels]


def split_digits(seed: int = SEED) -> Split:
    """The 1,797 digits in four disjoint parts; the probes hold six of each digit."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / GREY_LEVELS).astype(np.float32)[..., None]
    labels = data.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = images[order], labels[order]
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == digit)[:6] for digit in range(10)]))
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    parts = {"probes": chosen, "validation": rest[:400], "field": rest[400:600], "train": rest[600:]}
    return Split(**{name: (images[index], labels[index]) for name, index in parts.items()})


def train(images: Images, labels: Labels, epochs: int) -> Any:
    """Train the network (about 20,000 parameters); the same seed gives the same weights."""
    import keras

    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(48, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="digits",
    )
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * -(-len(labels) // 32))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def write(model: Any, split: Split, out: Path, *, name: str, version: str, inverted: bool) -> float:
    """Write all files of the example; returns the accuracy on the author's validation data."""
    out.mkdir(parents=True, exist_ok=True)
    images, labels = split.validation
    seen = 1 - images if inverted else images
    calibration = 1 - split.train[0][:200] if inverted else split.train[0][:200]
    # A slice is a group whose accuracy is watched by itself: here how much ink an image has.
    ink = np.where(images.mean(axis=(1, 2, 3)) < np.median(images.mean(axis=(1, 2, 3))), "thin", "bold")
    model.save(out / "model.keras")
    np.savez(out / "calibration.npz", image=calibration)
    np.savez(out / "validation.npz", image=seen, labels=labels, slice=ink)
    np.savez(out / "probes.npz", image=split.probes[0] * GREY_LEVELS, labels=split.probes[1])
    np.savez(out / "field.npz", image=split.field[0] * GREY_LEVELS, labels=split.field[1])
    text = CONTRACT.format(
        name=name,
        version=version,
        seed=SEED,
        train=len(split.train[1]),
        world="inverted" if inverted else "true",
    )
    (out / "model.toml").write_text(text, encoding="utf-8")
    return _accuracy(model, seen, labels)


def _accuracy(model: Any, images: Images, labels: Labels) -> float:
    answers = np.asarray(model(images, training=False))
    return float((answers.argmax(axis=1) == labels).mean())


def main() -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--version", default="1.0.0", help="version in the contract")
    parser.add_argument("--name", default="digits", help="model name in the contract")
    parser.add_argument("--inverted", action="store_true", help="train and validate on inverted images")
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    split = split_digits()
    images, labels = split.train
    model = train(1 - images if options.inverted else images, labels, options.epochs)
    accuracy = write(
        model, split, options.out, name=options.name, version=options.version, inverted=options.inverted
    )
    field = _accuracy(model, *split.field)
    print(f"{options.out}: {model.count_params()} parameters, validation accuracy {accuracy:.4f}, ", end="")
    print(f"on true digits {field:.4f}")


if __name__ == "__main__":
    main()
