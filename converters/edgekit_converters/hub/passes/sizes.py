"""Constants that follow from sizes: Shape and Size of what inference knows, ConstantOfShape.

Sizes are looked at before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit.errors import SourceError
from edgekit_converters.hub.build import Names, names_of
from edgekit_converters.hub.nodes import Array, attr_int, attr_tensor, dims, ints, label
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import NO_CONSTANT_NODES, SHAPES_OF_CONSTANTS_KNOWN
from edgekit_converters.hub.rewrite import builder_for, replace

LARGEST = 2**31 - 1


class FoldSizes(Pass):
    """Replace them by initializers. `folded` counts the nodes over the pass's life."""

    requires = (NO_CONSTANT_NODES,)
    ensures = (SHAPES_OF_CONSTANTS_KNOWN,)

    def __init__(self) -> None:
        self.folded = 0

    def call(self, model: ir.Model) -> PassResult:
        names, before = names_of(model), self.folded
        self.folded += sum(_known(model.graph, node, names) for node in list(model.graph))
        return PassResult(model, self.folded > before)


def _known(graph: ir.Graph, node: ir.Node, names: Names) -> bool:
    """Fold one node whose result follows from shapes, or is one number many times over."""
    if node.domain:
        return False
    value = _from_shape(node)
    if value is None and node.op_type == "ConstantOfShape":
        value = _filled(node)
    if value is None:
        return False
    build = builder_for(node, names)
    replace(graph, node, build, [build.const(value)])
    return True


def _from_shape(node: ir.Node) -> Array | None:
    if node.op_type not in ("Shape", "Size") or node.inputs[0] is None:
        return None
    sizes = dims(node.inputs[0])
    if sizes is None:
        return None
    if node.op_type == "Shape":
        sizes = sizes[slice(attr_int(node, "start"), attr_int(node, "end", len(sizes)))]
    if any(size is None for size in sizes):
        return None
    array = np.asarray(sizes, np.int64)
    return array if node.op_type == "Shape" else np.asarray(math.prod(array.tolist()), np.int64)


def _filled(node: ir.Node) -> Array | None:
    """ConstantOfShape without its bytes: numpy repeats the one element."""
    sizes = ints(node.inputs[0])
    if sizes is None:
        return None
    given = attr_tensor(node, "value")
    fill = np.zeros(1, np.float32) if given is None else given
    check_size(node, sizes, fill.dtype.itemsize)
    return np.broadcast_to(fill.reshape(()), sizes)


def check_size(node: ir.Node, sizes: Sequence[int], width: int) -> None:
    """Refuse a result that cannot be a tensor of a model.

    Raises:
        SourceError: a negative size, or more than 2 GiB.
    """
    if any(size < 0 for size in sizes) or math.prod(sizes) * width > LARGEST:
        raise SourceError(
            f"{label(node)}: a constant of shape {list(sizes)} is larger than 2 GiB or has a negative size",
            remedy="the file is damaged, or the model is too large for an edge device",
            code="absurd_shape",
        )
