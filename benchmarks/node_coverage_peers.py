"""The node tests of the `onnx` wheel by other converters: the same tests and the same judge."""

from __future__ import annotations

from benchmarks.harness import Run
from benchmarks.node_coverage import judge_routes

PEERS = {"onnx2tf": "TFLite by onnx2tf 2.6.9", "onnx2torch": "Core ML by onnx2torch 1.5.15 + coremltools 9.0"}


def main(run: Run) -> None:
    """Judge every test on both peers; four in the short form."""
    judge_routes(run, PEERS, 4)
