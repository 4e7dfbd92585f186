"""How much a TFLite file computes for one inference: the measure of how many samples the reference backend is
given. Counted and not timed, so that a package does not hang on how busy the machine was.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from edgekit_converters.frontends.tflite_model.reader import File, Op, read

WORK = 500_000_000
"""What one check may compute: seconds of CpuRef for the MLPerf Tiny networks."""
LEAST = 2
_ELEMENT = 16
"""CpuRef's cost of writing one element, in multiplications (it decodes and encodes each by a call)."""
_IMAGE = (1, 2, 3)
_TAPS = {"CONV_2D": _IMAGE, "TRANSPOSE_CONV": _IMAGE, "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1,)}
"""Axes of the weights that are summed over for one output."""


def work(path: Path) -> int:
    """Multiplications of one inference, elements written counted as `_ELEMENT` each."""
    file = read(path.read_bytes(), str(path))
    return sum(_work(file, op) for op in file.ops)


def affordable(path: Path, n: int) -> int:
    """How many of `n` samples are run, at least `LEAST`."""
    return min(n, max(LEAST, WORK // max(1, work(path))))


def _work(file: File, op: Op) -> int:
    written = prod(file.tensors[op.outputs[0]].shape)
    shape = file.tensors[op.inputs[1]].shape if op.kind in _TAPS else ()
    return written * (_ELEMENT + prod(shape[axis] for axis in _TAPS.get(op.kind, ())))
