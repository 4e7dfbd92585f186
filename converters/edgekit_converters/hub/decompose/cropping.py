"""CenterCropPad between known sizes: what it crops and pads is then no question of the shape it is fed.

Specification: Operators.md (CenterCropPad 18): the odd element is cropped from, or padded to, the end.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import required, static_shape


@rule("CenterCropPad")
def center_crop_pad(node: ir.Node, b: Builder) -> Result:
    """Slices, then pads with zeros."""
    x = required(node, 0)
    before, after = static_shape(x), static_shape(node.outputs[0])
    if before is None or after is None or len(before) != len(after):
        return None
    low, high = [0] * len(before), [0] * len(before)
    for axis, (size, wanted) in enumerate(zip(before, after, strict=True)):
        start = (abs(size - wanted)) // 2
        if size > wanted:
            x = b.slice(x, axis, start, start + wanted)
        else:
            low[axis], high[axis] = start, wanted - size - start
    return b("Pad", x, (*low, *high)) if any((*low, *high)) else b("Identity", x)
