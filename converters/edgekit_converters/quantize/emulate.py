"""Emulating a target's grid: the QDQ graph in onnxruntime, node by node, graph optimizations off.

The sums are float sums of values that lie exactly on the grids; an integer runtime's own rounding
and saturation of accumulators are not modelled. So a runtime is held to it op by op within one step
(`pieces`), and as a whole by the metric of the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize.running import runs


def emulate(model: ir.Model, inputs: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
    """The tensors `names` (the outputs when None) on all samples."""
    wanted = list(names) if names is not None else [str(item.name) for item in model.graph.outputs]
    parts = list(runs(model, inputs, wanted, optimized=False))
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def result_names(model: ir.Model) -> dict[str, str]:
    """Where a float graph's tensor is found in its QDQ form: after its pair, if it has one."""
    found: dict[str, str] = {}
    for node in model.graph:
        if node.op_type != "QuantizeLinear":
            continue
        source, readers = node.inputs[0], node.outputs[0].consumers()
        back = next((item for item in readers if item.op_type == "DequantizeLinear"), None)
        if source is None or back is None or str(source.name) in found:
            continue
        name = str(back.outputs[0].name)
        # An output keeps its name after the pair; before it, it is called raw.
        found[name if back.outputs[0].is_graph_output() else str(source.name)] = name
    return found
