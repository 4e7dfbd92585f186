"""One kernel of the Core ML evaluator, and one op of onnxruntime, called alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from edgekit_converters.targets.coreml.evaluate.kernels import KERNELS
from tests.converters.graphs import Array

_MADE = {"NonMaxSuppression": TensorProto.INT64}


def onnx_op(kind: str, *arrays: Array | None, outputs: int = 1, **attributes: Any) -> list[Array]:
    """Outputs of one ONNX node of opset 21; an input that is None is left out."""
    names = [f"i{n}" if array is not None else "" for n, array in enumerate(arrays)]
    given = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    made = [f"o{n}" for n in range(outputs)]
    node = helper.make_node(kind, names, made, **attributes)
    out = [helper.make_tensor_value_info(name, _MADE.get(kind, TensorProto.FLOAT), None) for name in made]
    graph = helper.make_graph([node], "op", ports, out)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(item) for item in session.run(None, given)]


def run(kind: str, **arguments: Any) -> Any:
    """The kernel of a MIL op, lists and plain numbers as arrays."""
    known = {
        name: np.asarray(v) if isinstance(v, list | int | float | bool) else v
        for name, v in arguments.items()
    }
    return KERNELS[kind].function(**known)
