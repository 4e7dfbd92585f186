"""One command, eight kinds of hardware: MLPerf Tiny's ResNet-8 for phones, boards, servers and a chip.

`edgekit convert` in a fresh process with an empty cache, a hundred patches of photographs to calibrate and
two hundred to judge by. They are not its own test data: what is judged is whether a variant says the same as
the source, so only patches are taken of which the network (the reference int8 file) is sure, 0.9 or more; of
the others its class is a coin's. How each variant was checked depends on the tools that are installed, so
their count is a figure too.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convert_times import EDGEKIT, zoo
from benchmarks.harness import Run, Skipped
from benchmarks.quantization import litert
from benchmarks.quantization_inputs import MODELS, Samples, bitmap

PROFILES = (
    *("rpi4", "jetson-orin-nano", "iphone-17-pro", "android-arm64"),
    *("armnn-linux", "am62a", "cortex-m7", "triton-cpu"),
)
SIDE, SURE = 32, 0.9
DONE = (0, 3)
"""Every variant written, or some refused."""


def patches() -> dict[str, Samples]:
    """Calibration and validation, (n, 32, 32, 3), 0 to 255."""
    photographs = [bitmap(zoo() / "mobilenet" / f"{name}.bmp") for name in ("cat", "bird", "sunflower")]
    known = litert((zoo() / MODELS["resnet"][1]).read_bytes(), "xnnpack")
    return {
        name: _sure(photographs, known, n, np.random.default_rng(seed))
        for seed, (name, n) in enumerate((("calibration", 100), ("validation", 200)))
    }


def _sure(photographs: Sequence[Any], known: Any, n: int, random: np.random.Generator) -> Samples:
    found: list[Samples] = []
    while len(found) < n:
        picture = photographs[int(random.integers(len(photographs)))]
        step = int(random.integers(2, min(picture.shape[:2]) // SIDE + 1))
        top, left = (int(random.integers(0, size - SIDE * step + 1)) for size in picture.shape[:2])
        part = picture[top : top + SIDE * step, left : left + SIDE * step]
        patch = part.reshape(SIDE, step, SIDE, step, 3).mean((1, 3)).astype(np.float32)
        if known(patch[None]).max() >= SURE:
            found.append(patch)
    return np.stack(found)


def command(folder: Path, profiles: tuple[str, ...]) -> tuple[float, list[str]]:
    """Wall seconds of the command, and how each variant was checked.

    Raises:
        Skipped: it failed; its last words are the reason.
    """
    source, _, _ = MODELS["resnet"]
    for name, samples in patches().items():
        np.savez(folder / f"{name}.npz", samples)
    words: list[str | Path] = [EDGEKIT, "convert", zoo() / source, "--out", folder / "package", "--json"]
    words += ["--calibration", folder / "calibration.npz", "--validation", folder / "validation.npz"]
    for profile in profiles:
        words += ["--profile", profile]
    private = {**os.environ, "EDGEKIT_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=private)
    seconds = time.perf_counter() - started
    if done.returncode not in DONE:
        raise Skipped(f"edgekit convert ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    manifest = json.loads((folder / "package" / "package.json").read_text(encoding="utf-8"))
    for item in manifest["refused"]:
        print(f"  refused {item['id']}: {item['reason_code']}")
    return seconds, [item["verification"]["method"] for item in manifest["variants"]]


def main(run: Run) -> None:
    """Eight profiles, cold; one in the short form."""
    if not (zoo() / "mobilenet").is_dir():
        raise Skipped("the model zoo is not beside the checkout (EDGEKIT_SHARED)")
    profiles = PROFILES[-2:-1] if run.short else PROFILES
    times: list[float] = []
    methods: list[str] = []
    for _ in range(run.repeats(3)):
        with tempfile.TemporaryDirectory() as folder:
            seconds, methods = command(Path(folder), profiles)
        times.append(seconds)
    kinds = f"{len(profiles)} profiles" if len(profiles) > 1 else profiles[0]
    run.add("eight-cold", f"ResNet-8 for {kinds}, nothing cached", "s", times)
    for method in ("executed", "emulated", "prepared"):
        run.add(f"eight-{method}", f"variants {method}", "variants", [methods.count(method)])
