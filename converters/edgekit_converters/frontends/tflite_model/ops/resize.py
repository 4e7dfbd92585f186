"""Resizing images: bilinear and nearest, with the three ways of laying the grids over each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit_converters.frontends.tflite_model.graph import Graph
from edgekit_converters.frontends.tflite_model.reader import Op


def _mode(g: Graph, op: Op) -> str:
    if g.option(op, "alignCorners", False):
        return "align_corners"
    return "half_pixel" if g.option(op, "halfPixelCenters", False) else "asymmetric"


def _resized(g: Graph, op: Op, **attributes: Any) -> None:
    shape = g.tensor(op.outputs[0]).shape
    sizes = np.array([shape[1], shape[2]], np.int64)
    made = g.e.op(
        "Resize", g.value(op.inputs[0], first=True), "", "", g.e.constant(sizes), axes=[2, 3], **attributes
    )
    g.put(op.outputs[0], made, first=True)


def bilinear(g: Graph, op: Op) -> None:
    """RESIZE_BILINEAR."""
    _resized(g, op, mode="linear", coordinate_transformation_mode=_mode(g, op))


def nearest(g: Graph, op: Op) -> None:
    """RESIZE_NEAREST_NEIGHBOR: aligned corners round half up, half pixels and the rest round down."""
    mode = _mode(g, op)
    if mode == "half_pixel":
        # floor((i + 0.5) * scale) is (i + 0.5) * scale - 0.5 rounded half up.
        _resized(
            g,
            op,
            mode="nearest",
            coordinate_transformation_mode="half_pixel",
            nearest_mode="round_prefer_ceil",
        )
        return
    rounding = "round_prefer_ceil" if mode == "align_corners" else "floor"
    _resized(g, op, mode="nearest", coordinate_transformation_mode=mode, nearest_mode=rounding)


OPS: dict[str, Callable[[Graph, Op], None]] = {
    "RESIZE_BILINEAR": bilinear,
    "RESIZE_NEAREST_NEIGHBOR": nearest,
}
