"""The node tests of the `onnx` wheel by other converters: the same tests and the same judge."""

from __future__ import annotations

from benchmarks.harness import Run, Skipped
from benchmarks.node_coverage import judge_routes

PEERS = {"onnx2tf": "TFLite by onnx2tf 2.6.9", "onnx2torch": "Core ML by onnx2torch 1.5.15 + coremltools 9.0"}


def main(run: Run) -> None:
    """Judge every test on both peers.

    Raises:
        Skipped: in the short form: the peers would have to be installed first.
    """
    if run.short:
        raise Skipped("other converters are installed for the full form only")
    judge_routes(run, PEERS, 0)
