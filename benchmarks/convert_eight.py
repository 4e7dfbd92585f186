"""One command, eight kinds of hardware: MLPerf Tiny's ResNet-8 for phones, boards, servers and a chip.

`edgekit convert` in a fresh process with an empty cache, a hundred photograph patches to calibrate and two
hundred to judge by (they are not its own test data: agreement with the source is what is judged). How
each variant was checked depends on the tools that are installed, so their count is a figure too.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.convert_times import EDGEKIT, zoo
from benchmarks.harness import Run, Skipped
from benchmarks.quantization_inputs import MODELS

PROFILES = (
    *("rpi4", "jetson-orin-nano", "iphone-17-pro", "android-arm64"),
    *("armnn-linux", "am62a", "cortex-m7", "triton-cpu"),
)
DONE = (0, 3)
"""Every variant written, or some refused."""


def command(folder: Path, profiles: tuple[str, ...]) -> tuple[float, list[str]]:
    """Wall seconds of the command, and how each variant was checked.

    Raises:
        Skipped: it failed; its last words are the reason.
    """
    source, _, inputs = MODELS["resnet"]
    calibration, test = inputs(zoo())
    np.savez(folder / "calibration.npz", calibration)
    np.savez(folder / "validation.npz", test)
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
