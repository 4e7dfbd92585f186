"""Resize where one of MIL's resizing ops means exactly the same; everything else is the hub's.

MIL's ops work on the last two axes. The hub writes any other Resize as gathers and matrix products.
Specification: onnx/docs/Operators.md#Resize; MIL's `resize_bilinear` (the sampling modes) and
`upsample_nearest_neighbor`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.hub import nodes
from edgekit_converters.targets.coreml.lower.node import Node, Var
from edgekit_converters.targets.coreml.lower.registry import lowers

_NEAREST = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
}
"""All the same for a whole factor."""
_LINEAR = {
    "asymmetric": "DEFAULT",
    "align_corners": "STRICT_ALIGN_CORNERS",
    "half_pixel": "UNALIGN_CORNERS",
    "pytorch_half_pixel": "UNALIGN_CORNERS",
}


def _sizes(node: ir.Node) -> tuple[list[int], list[int]] | None:
    """The last two sizes before and after; None when another axis changes or a size is free."""
    before, after = nodes.static_shape(node.inputs[0]), nodes.static_shape(node.outputs[0])
    if before is None or after is None or not 3 <= len(before) <= 5 or before[:-2] != after[:-2]:
        return None
    return list(before[-2:]), list(after[-2:])


def _same_scale(node: ir.Node, before: list[int], after: list[int]) -> bool:
    """Whether a stored scale is just the ratio of the sizes, as MIL computes it."""
    scales = nodes.constant(nodes.operand(node, 2))
    if scales is None or not scales.size:
        return nodes.operand(node, 3) is not None
    last = [float(item) for item in scales.reshape(-1)][-2:]
    return all(
        np.float32(size) * np.float32(s) == new for size, s, new in zip(before, last, after, strict=True)
    )


def _native(node: ir.Node) -> bool:
    found = _sizes(node)
    unusual = nodes.attr_int(node, "antialias") or nodes.attr_int(node, "exclude_outside")
    policy = nodes.attr_str(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    if (
        found is None
        or unusual
        or policy
        or not nodes.is_float(node.inputs[0])
        or not _same_scale(node, *found)
    ):
        return False
    before, after = found
    where = nodes.attr_str(node, "coordinate_transformation_mode", "half_pixel")
    if nodes.attr_str(node, "mode", "nearest") == "nearest":
        rounding = nodes.attr_str(node, "nearest_mode", "round_prefer_floor")
        whole = all(new % size == 0 for size, new in zip(before, after, strict=True))
        return (where, rounding) in _NEAREST and whole
    if nodes.attr_str(node, "mode") != "linear" or where not in _LINEAR:
        return False
    return min(after) > 1 and min(before) > 1


@lowers("Resize", when=_native)
def _resize(node: Node) -> Var:
    found = _sizes(node.raw)
    if found is None or not _native(node.raw):
        node.refuse("this mode, these axes or this scale", "unsupported_attribute")
    before, after = found
    if node.text("mode", "nearest") == "nearest":
        factors = [new // size for size, new in zip(before, after, strict=True)]
        return mb.upsample_nearest_neighbor(
            x=node.var(0), scale_factor_height=factors[0], scale_factor_width=factors[1]
        )
    return mb.resize_bilinear(
        x=node.var(0),
        target_size_height=after[0],
        target_size_width=after[1],
        sampling_mode=_LINEAR[node.text("coordinate_transformation_mode", "half_pixel")],
    )


def _sampled(node: ir.Node) -> bool:
    """Images, bilinear; `nearest` is left out: the two specifications round halves differently."""
    mode = nodes.attr_str(node, "mode", "linear")
    return nodes.rank(node.inputs[0]) == 4 and mode in ("linear", "bilinear")


@lowers("GridSample", when=_sampled)
def _grid_sample(node: Node) -> Var:
    corners = bool(node.integer("align_corners"))
    padding = node.text("padding_mode", "zeros")
    if padding == "reflection":
        padding = "reflection" if corners else "symmetric"
    return mb.resample(
        x=node.var(0),
        coordinates=node.var(1),
        sampling_mode="bilinear",
        padding_mode={"zeros": "constant"}.get(padding, padding),
        padding_value=np.float32(0),
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=corners,
    )
