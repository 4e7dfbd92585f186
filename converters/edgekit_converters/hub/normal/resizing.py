"""Resize: what is empty is absent, and scales give the sizes that onnxruntime computes.

Onnx's inference multiplies sizes and scales exactly, onnxruntime in float32: 5 · 2.6 is 12 and a bit
for the one and 13 for the other. The scale is moved by the last place, so that both say 13.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import attr_ints, constant, dims, front, operand, required
from edgekit_converters.hub.normal.table import rule


@rule("Resize")
def resize(node: ir.Node, b: Builder) -> Result:
    """See the module."""
    given = [operand(node, index) for index in range(4)]
    kept = [None if _empty(value) else value for value in given]
    scales, sizes = constant(kept[2]), dims(required(node, 0))
    moved = None
    if scales is not None and sizes is not None:
        axes = front(attr_ints(node, "axes") or tuple(range(len(sizes))), len(sizes))
        moved = np.array([_moved(s, sizes[a]) for s, a in zip(scales, axes, strict=True)], np.float32)
    if kept == given and (moved is None or scales is None or np.array_equal(moved, scales)):
        return None
    return b.again(node, kept[0], kept[1], kept[2] if moved is None else moved, kept[3])


def _empty(value: ir.Value | None) -> bool:
    return value is not None and dims(value) == (0,)


def _moved(scale: np.float32, size: int | None) -> np.float32:
    """The scale nearest to `scale` whose exact product has the whole part of the rounded one."""
    if size is None or not np.isfinite(scale):
        return scale
    wanted = math.floor(np.float32(scale) * np.float32(size))
    for _ in range(4):
        exact = math.floor(float(scale) * size)
        if exact == wanted:
            break
        scale = np.nextafter(scale, np.float32(np.inf if exact < wanted else -np.inf))
    return scale
