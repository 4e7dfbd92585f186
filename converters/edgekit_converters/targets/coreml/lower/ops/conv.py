"""Convolutions. Specification: onnx/docs/Operators.md; MIL's `conv` and `conv_transpose`.

Core ML is channels-first like ONNX: no layout changes. Weights that are computed are taken since iOS 17.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.hub import nodes
from edgekit_converters.targets.coreml.lower.node import Node, Var, reshaped
from edgekit_converters.targets.coreml.lower.registry import lowers


def pairs(pads: list[int]) -> list[int]:
    """ONNX's begins and ends as MIL's pairs."""
    half = len(pads) // 2
    return [p for i in range(half) for p in (pads[i], pads[i + half])]


def padding(node: Node, spatial: int) -> list[int]:
    """The pads, begins then ends; `auto_pad` was resolved by the hub wherever sizes are known."""
    mode = node.text("auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID"):
        node.refuse(f"auto_pad {mode} with free sizes", "dynamic_shape")
    found = node.integers("pads") if mode == "NOTSET" else None
    found = found or [0] * (2 * spatial)
    if min(found) < 0:
        node.refuse("negative pads")
    return found


def _spatial(node: Node) -> int:
    spatial = node.var(0).rank - 2
    if spatial not in (1, 2, 3):
        node.refuse(f"{spatial} spatial axes")
    return int(spatial)


def _bias(node: Node) -> dict[str, Any]:
    if not node.has(2):
        return {}
    if node.scope.target < 17 and not node.var(2).is_descendant_of_const:
        node.refuse("a bias that is computed, before iOS 17", "requires_constant_input")
    return {"bias": node.var(2)}


@lowers("Conv")
def _conv(node: Node) -> Var:
    spatial = _spatial(node)
    dilations = node.integers("dilations") or [1] * spatial
    if max(dilations) > 1 and not node.var(1).is_descendant_of_const:
        node.refuse("dilations with weights that are computed", "requires_constant_input")
    pads = padding(node, spatial)
    return mb.conv(
        x=node.var(0),
        weight=node.var(1),
        strides=node.integers("strides") or [1] * spatial,
        dilations=dilations,
        groups=node.integer("group", 1),
        pad_type="custom" if any(pads) else "valid",
        **({"pad": pairs(pads)} if any(pads) else {}),
        **_bias(node),
    )


def _transposable(node: ir.Node) -> bool:
    return nodes.attr_str(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")


@lowers("ConvTranspose", when=_transposable)
def _conv_transpose(node: Node) -> Var:
    """Cropped by what the pads say; what `output_padding` adds beyond them is zero plus the bias."""
    spatial = _spatial(node)
    if node.scope.target < 17 and not node.var(1).is_descendant_of_const:
        node.refuse("weights that are computed, before iOS 17", "requires_constant_input")
    strides = node.integers("strides") or [1] * spatial
    dilations = node.integers("dilations") or [1] * spatial
    kernel = node.shape(1)[2:]
    begin, end = _transposed_pads(node, spatial, strides, dilations, kernel)
    extra = [max(-p, 0) for p in end]
    crop = [p for low, high in zip(begin, end, strict=True) for p in (low, max(high, 0))]
    bias = _bias(node)
    found = mb.conv_transpose(
        x=node.var(0),
        weight=node.var(1),
        strides=strides,
        dilations=dilations,
        groups=node.integer("group", 1),
        pad_type="custom" if any(crop) else "valid",
        **({"pad": crop} if any(crop) else {}),
        **({} if any(extra) else bias),
    )
    if not any(extra):
        return found
    found = mb.pad(
        x=found, pad=[p for high in extra for p in (0, high)], mode="constant", constant_val=np.float32(0)
    )
    if not bias:
        return found
    return mb.add(x=found, y=reshaped(bias["bias"], [1, -1] + [1] * spatial))


def _transposed_pads(
    node: Node, spatial: int, strides: list[int], dilations: list[int], kernel: list[int]
) -> tuple[list[int], list[int]]:
    """What is cut off at the begins and ends; an end below zero is added instead."""
    added = node.integers("output_padding") or [0] * spatial
    wanted = node.integers("output_shape")
    if wanted is None:
        pads = padding(node, spatial)
        return pads[:spatial], [pads[i + spatial] - added[i] for i in range(spatial)]
    sizes = node.shape()[2:]
    begin, end = [], []
    for i in range(spatial):
        full = strides[i] * (sizes[i] - 1) + added[i] + (kernel[i] - 1) * dilations[i] + 1
        total = full - wanted[-spatial:][i]
        begin.append(max(total, 0) // 2)
        end.append(total - begin[-1] - added[i])
    return begin, end
