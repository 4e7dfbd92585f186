"""What an ONNX file holds: counted facts for the report and for "did anything happen?"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

_PLUMBING = {"QuantizeLinear", "DequantizeLinear"}


def inspect(model: Path | bytes) -> Mapping[str, Any]:
    """Count ops, int8 weights, and the share of ops all of whose float inputs are dequantized."""
    graph = (onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    work = [node for node in graph.node if node.op_type not in _PLUMBING]
    integer = sum(1 for node in work if any(makers.get(name) == "DequantizeLinear" for name in node.input))
    weights = Counter(
        onnx.TensorProto.DataType.Name(item.data_type) for item in graph.initializer if item.dims
    )
    kinds = Counter(node.op_type for node in graph.node)
    return {
        "ops": dict(sorted(kinds.items())),
        "op_count": len(graph.node),
        "int8_op_ratio": round(integer / max(1, len(work)), 3),
        "int8_weights": weights["INT8"],
        "fp16_weights": weights["FLOAT16"],
    }
