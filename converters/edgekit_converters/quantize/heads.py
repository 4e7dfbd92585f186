"""Detection heads that share a scale: boxes in pixels beside scores below one, concatenated at the end.

One 8-bit grid for both makes every score 0. Found by the ranges; the concatenation and what only
moves its values on to the output then stay float, so that each part keeps its own scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgekit_converters.quantize.roles import MOVERS, array

RATIO = 8.0
"""Parts whose largest magnitudes differ by more than this lose three bits to a shared scale."""


def shared_scale_concats(graph: ir.Graph, ranges: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """First outputs of the concatenations to be kept float."""
    return tuple(
        str(node.outputs[0].name)
        for node in graph
        if node.op_type == "Concat" and _uneven(node, ranges) and _reaches_outputs_only(node)
    )


def _uneven(node: ir.Node, ranges: Mapping[str, tuple[float, float]]) -> bool:
    peaks = []
    for value in node.inputs:
        if value is None or array(value) is not None:
            continue
        if value.name not in ranges:
            return False
        low, high = ranges[str(value.name)]
        peaks.append(max(abs(low), abs(high)))
    return len(peaks) > 1 and max(peaks) > RATIO * min(peaks)


def _reaches_outputs_only(node: ir.Node) -> bool:
    output = node.outputs[0]
    readers = output.consumers()
    if not readers:
        return output.is_graph_output()
    return all(reader.op_type in MOVERS and _reaches_outputs_only(reader) for reader in readers)
