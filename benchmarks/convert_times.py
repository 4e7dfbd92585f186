"""How long `edgekit convert` takes, as a user sees it: whole commands in fresh processes, nothing cached.

The digits example for each host profile and for five boards at once; and, where the model zoo is
beside the checkout, MLPerf Tiny's ResNet-8 (CIFAR-10) to its float variants.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import ROOT, Run, Skipped

BOARDS = ("rpi4", "jetson-orin-nano", "iphone-15", "x86-64-litert", "x86-64-onnx")
HOSTS = ("x86-64-litert", "x86-64-onnx")
EDGEKIT = Path(sys.executable).parent / "edgekit"


def convert(source: Path, profiles: tuple[str, ...], folder: Path, *more: str | Path) -> float:
    """Wall seconds of one conversion with an empty cache.

    Raises:
        Skipped: the command failed; its last words are the reason.
    """
    words: list[str | Path] = [EDGEKIT, "convert", source, "--out", folder / "package", "--json", *more]
    for profile in profiles:
        words += ["--profile", profile]
    private = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "EDGEKIT_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=private)
    if done.returncode != 0:
        raise Skipped(
            f"edgekit convert {source.name} ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    return time.perf_counter() - started


def samples(n: int, source: Path, profiles: tuple[str, ...], *more: str | Path) -> list[float]:
    """`n` conversions, each in a folder of its own."""
    times = []
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            times.append(convert(source, profiles, Path(folder), *more))
    return times


def digits(run: Run, folder: Path) -> None:
    """Train the example and convert it."""
    started = time.perf_counter()
    command: list[str | Path] = [sys.executable, ROOT / "examples" / "digits" / "train.py", "--out", folder]
    command += ["--epochs", "2"] if run.short else []
    subprocess.run(command, check=True, capture_output=True)
    if not run.short:
        run.add("digits-train", "train the digits example", "s", [time.perf_counter() - started])
    data: list[str | Path] = [
        "--contract",
        folder / "model.toml",
        "--calibration",
        folder / "calibration.npz",
    ]
    data += ["--validation", folder / "validation.npz"]
    data += ["--allow-breach"] if run.short else []
    source = folder / "model.keras"
    if run.short:
        times = samples(1, source, HOSTS[1:], *data)
        run.add("convert-digits-onnx", "digits for x86-64-onnx", "s", times)
        return
    run.add("convert-digits-litert", "digits for x86-64-litert", "s", samples(3, source, HOSTS[:1], *data))
    run.add("convert-digits-onnx", "digits for x86-64-onnx", "s", samples(3, source, HOSTS[1:], *data))
    run.add("convert-digits-five", "digits for five profiles at once", "s", samples(3, source, BOARDS, *data))


def zoo() -> Path:
    """The model zoo beside the checkout, or where EDGEKIT_SHARED says."""
    chosen = os.environ.get("EDGEKIT_SHARED")
    return (Path(chosen) if chosen else ROOT.parent / "shared") / "models"


def main(run: Run) -> None:
    """Measure the conversions."""
    with tempfile.TemporaryDirectory() as folder:
        digits(run, Path(folder))
    resnet = zoo() / "image_classification" / "pretrainedResnet.h5"
    if run.short or not resnet.is_file():
        return
    times = samples(3, resnet, HOSTS, "--precision", "fp32")
    run.add("convert-resnet", "MLPerf Tiny ResNet-8 for both host profiles, fp32", "s", times)
