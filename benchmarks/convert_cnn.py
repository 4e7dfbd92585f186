"""`edgekit convert` of a 3-MB ONNX network to TFLite int8, ONNX int8 and Core ML: cold, then from the cache.

The network has the size of MobileNet (96x96x3 in, separable convolutions, 0.7 M weights), seeded weights;
200 calibration and 500 validation samples without labels. Ten real outputs and no softmax: classes of an
untrained network lie too close together for a verdict on them. What is timed is the whole command as a
user types it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Run, Skipped

EDGEKIT = Path(sys.executable).parent / "edgekit"
WIDTHS = ((32, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (256, 1), (512, 2), (600, 1))


def network(path: Path) -> None:
    """Write the network: first convolution, separable blocks, global mean, ten classes."""
    rng = np.random.default_rng(5)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, shape: tuple[int, ...], fan: int) -> str:
        values = rng.standard_normal(shape) * np.sqrt(2 / fan)
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(name: str, x: str, size: tuple[int, int], kernel: int, stride: int, group: int) -> str:
        out, inner = size
        fan = inner * kernel * kernel
        w = constant(f"{name}.w", (out, inner, kernel, kernel), fan)
        b = constant(f"{name}.b", (out,), 10 * fan)
        pads = [kernel // 2] * 4
        attributes: dict[str, Any] = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": pads,
            "group": group,
        }
        nodes.append(helper.make_node("Conv", [x, w, b], [f"{name}.y"], **attributes))
        nodes.append(helper.make_node("Relu", [f"{name}.y"], [name]))
        return name

    x, width = conv("stem", "image", (32, 3), 3, 2, 1), 32
    for index, (out, stride) in enumerate(WIDTHS):
        x = conv(f"dw{index}", x, (width, 1), 3, stride, width)
        x = conv(f"pw{index}", x, (out, width), 1, 1, 1)
        width = out
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    head = constant("head.w", (10, width), width)
    nodes.append(helper.make_node("Gemm", ["flat", head], ["score"], transB=1))
    ports = (
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 96, 96]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 10]),
    )
    graph = helper.make_graph(nodes, "cnn", [ports[0]], [ports[1]], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def data(path: Path, n: int, seed: int) -> None:
    """Seeded smooth pictures: what cameras give is not white noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((n, 3, 12, 12), np.float32)
    fine = coarse.repeat(8, axis=2).repeat(8, axis=3)
    np.savez(path, image=(0.9 * fine + 0.1 * rng.random(fine.shape, np.float32)).astype(np.float32))


def command(folder: Path, out: str) -> float:
    """Wall seconds of the command."""
    words: list[str | Path] = [EDGEKIT, "convert", folder / "cnn.onnx", "--out", folder / out, "--json"]
    words += ["--calibration", folder / "cal.npz", "--validation", folder / "val.npz"]
    for profile in ("rpi4", "x86-64-onnx", "iphone-15"):
        words += ["--profile", profile]
    words += ["--precision", "int8", "--precision", "coreml:fp16"]
    private = {**os.environ, "EDGEKIT_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=private)
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 3) or not (folder / out / "package.json").is_file():
        raise Skipped(f"edgekit convert ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return seconds


def main(run: Run) -> None:
    """Cold and warm, each in a folder of its own."""
    cold, warm = [], []
    for _ in range(run.repeats(3)):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            network(folder / "cnn.onnx")
            data(folder / "cal.npz", 200, 1)
            data(folder / "val.npz", 500, 2)
            cold.append(command(folder, "cold"))
            warm.append(command(folder, "warm"))
    title = "3-MB ONNX network to TFLite int8, ONNX int8 and Core ML fp16"
    run.add("cnn-cold", f"{title}, nothing cached", "s", cold)
    run.add("cnn-warm", f"{title}, from the cache", "s", warm)
