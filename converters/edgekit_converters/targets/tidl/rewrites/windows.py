"""Pools and convolutions with windows that the accelerator does not have.

1. an average over the whole plane is a global one;
2. a large max pool of stride one is a chain of 3x3 ones: the largest of the largest;
3. a kernel of even size gets a row and a column of zeros in front, and as much more padding;
4. a large kernel with a stride of two goes over every place, and a 1x1 pool takes every second: four times
   the work of that layer, and no cut in the network; an activation goes before such a pool, to its layer.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import (
    attr_int,
    attr_ints,
    attr_str,
    constant,
    required,
    static_shape,
    used_outputs,
)
from edgekit_converters.targets.tidl.checks import Known, kernel, kernel_over_7_stride_2, steps
from edgekit_converters.targets.tidl.rewrites.table import rewrite

_LARGEST_ODD = 7


@rewrite("AveragePool")
def whole_window_to_global(node: ir.Node, build: Builder) -> Result:
    """One window that is the plane."""
    shape = static_shape(node.inputs[0])
    if shape is None or shape[2:] != kernel(node)[-len(shape[2:]) :] or any(attr_ints(node, "pads") or ()):
        return None
    return None if _auto(node) else build("GlobalAveragePool", node.inputs[0])


@rewrite("MaxPool")
def large_max_pool_to_chain(node: ir.Node, build: Builder) -> Result:
    """A square window of odd size above three; the last of the chain has the stride."""
    size, pads = kernel(node), list(attr_ints(node, "pads") or (0, 0, 0, 0))
    plain = len(used_outputs(node)) == 1 and not attr_int(node, "ceil_mode", 0) and not _auto(node)
    square = len(size) == 2 and size[0] == size[1] and size[0] > 3 and size[0] % 2 == 1 and len(pads) == 4
    if not plain or not square or any(item != 1 for item in steps(node, "dilations")):
        return None
    links = (size[0] - 1) // 2
    if max(pads) > links:
        return None
    value = required(node, 0)
    for link in range(links):
        own = [int(item > link) for item in pads]
        stride = list(steps(node)) if link == links - 1 else [1, 1]
        value = build("MaxPool", value, kernel_shape=[3, 3], pads=own, strides=stride)
    return value


@rewrite("Conv")
def even_kernel_to_odd(node: ir.Node, build: Builder) -> Result:
    """Zeros in front of an even kernel; not where that would make it too large for its stride."""
    weight, size = constant(node.inputs[1]), kernel(node)
    if weight is None or weight.ndim != 4 or all(item % 2 for item in size) or _auto(node):
        return None
    grown = [item + 1 - item % 2 for item in size]
    if max(grown) > _LARGEST_ODD and max(steps(node)) > 1:
        return None
    more = [new - old for new, old in zip(grown, size, strict=True)]
    pads = list(attr_ints(node, "pads") or (0, 0, 0, 0))
    for axis, dilation in enumerate(steps(node, "dilations")):
        pads[axis] += more[axis] * dilation
    wide = np.pad(weight, [(0, 0), (0, 0), (more[0], 0), (more[1], 0)])
    return build.again(node, node.inputs[0], wide, *node.inputs[2:], kernel_shape=grown, pads=pads)


@rewrite("Conv")
def stride_to_subsampling(node: ir.Node, build: Builder) -> Result:
    """A kernel above seven with stride two."""
    if not kernel_over_7_stride_2(node, Known()) or set(steps(node)) != {2} or _auto(node):
        return None
    if constant(node.inputs[1]) is None or len(kernel(node)) != 2:
        return None
    (dense,) = build.again(node, *node.inputs, strides=[1, 1])
    return build("MaxPool", dense, kernel_shape=[1, 1], strides=[2, 2])


@rewrite("Relu", "Clip")
def activation_before_subsampling(node: ir.Node, build: Builder) -> Result:
    """Behind a 1x1 pool that nothing else reads."""
    value = required(node, 0)
    pool = value.producer()
    if pool is None or pool.op_type != "MaxPool" or set(kernel(pool)) != {1} or len(value.uses()) != 1:
        return None
    if value.is_graph_output() or any(attr_ints(pool, "pads") or ()):
        return None
    (active,) = build.again(node, pool.inputs[0], *node.inputs[1:])
    return build("MaxPool", active, kernel_shape=[1, 1], strides=list(steps(pool)))


def _auto(node: ir.Node) -> bool:
    return attr_str(node, "auto_pad", "NOTSET") != "NOTSET"
