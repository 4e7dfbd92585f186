"""What each input of an ONNX op is to quantization: data, a weight, a bias, or nothing it touches.

Facts of the ONNX operator specification (opset 21) only; what a runtime allows is in the rules files.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Ops that multiply and sum: the work that integer arithmetic speeds up."""
_REARRANGE = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth"}
_SELECT = {"Slice", "Split", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "Pad"}
MOVERS = frozenset({*_REARRANGE, *_SELECT, "Concat", "ReverseSequence"})
"""Ops that place values elsewhere and compute nothing."""
ACTIVATIONS = ("Relu", "Clip")
_REDUCE = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "TopK"}
_POOL = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
_FIRST_ONLY = frozenset({*_REARRANGE, *_SELECT, *_REDUCE, *_POOL, "Resize", "Clip"})
_FLOATS = (ir.DataType.FLOAT, None)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Input positions of one node by role; `axis` is the weight's channel axis (None: no such axis)."""

    data: tuple[int, ...]
    weight: int | None = None
    bias: int | None = None
    axis: int | None = None


def roles(node: ir.Node) -> Roles:
    """The roles of `node`'s inputs. A weight or bias that is not constant counts as data."""
    given = [i for i, value in enumerate(node.inputs) if value is not None and is_float(value)]
    if node.op_type in _FIRST_ONLY:
        return Roles(data=tuple(i for i in given if i == 0))
    if node.op_type == "Where":
        return Roles(data=tuple(i for i in given if i in (1, 2)))
    if node.op_type not in WEIGHTED or array(node.inputs[1]) is None:
        return Roles(data=tuple(given))
    bias = 2 if len(node.inputs) > 2 and array(node.inputs[2]) is not None else None
    data = tuple(i for i in given if i not in (1, bias))
    return Roles(data=data, weight=1, bias=bias, axis=_channel_axis(node))


def _channel_axis(node: ir.Node) -> int | None:
    weight = node.inputs[1]
    rank = 0 if weight is None or weight.shape is None else len(weight.shape)
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if integer(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if integer(node, "transB", 0) else 1
    return 1 if rank == 2 else None


def is_float(value: ir.Value) -> bool:
    """Whether a tensor holds float32 (or its type is unknown)."""
    return value.dtype in _FLOATS


def array(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant behind a value, if it is one."""
    return None if value is None or value.producer() is not None else value.const_value


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    found = node.attributes.get(name)
    return default if found is None else int(found.as_int())


def number(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    found = node.attributes.get(name)
    return default if found is None else float(found.as_float())


def integers(node: ir.Node, name: str) -> tuple[int, ...]:
    """A list attribute, empty when it is not given."""
    found = node.attributes.get(name)
    return () if found is None else tuple(found.as_ints())
