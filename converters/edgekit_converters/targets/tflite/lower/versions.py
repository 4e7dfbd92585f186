"""The lowest version of a TFLite op that carries what is asked of it.

Facts from LiteRT's tflite/tools/versioning/op_version.cc. `Context.emit` calls `version_of`; a lowering
that knows better passes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor

_D = ir.DataType
Inputs = Sequence[Tensor | None]


def version_of(op: str, inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    """The lowest version of `op` for these tensors and options."""
    special = _SPECIAL.get(op)
    if special is not None:
        return special(inputs, outputs, fields)
    first = next((item for item in inputs if item is not None), None)
    return _BY_DTYPE.get(op, {}).get(first.dtype, 1) if first is not None else 1


def _ops(text: str) -> list[str]:
    return text.split()


_INT8 = {_D.INT8: 2}
_INT8_INT16 = {_D.INT8: 2, _D.INT16: 3}
_BY_DTYPE: dict[str, dict[ir.DataType, int]] = {
    **dict.fromkeys(
        _ops(
            "LESS_EQUAL GREATER SPACE_TO_DEPTH DEPTH_TO_SPACE SPLIT_V SUM LOG_SOFTMAX SQUARED_DIFFERENCE "
            "NOT_EQUAL L2_NORMALIZATION"
        ),
        _INT8,
    ),
    **dict.fromkeys(
        _ops(
            "SOFTMAX MEAN MIRROR_PAD REDUCE_MAX REDUCE_MIN RELU6 RSQRT MAX_POOL_2D AVERAGE_POOL_2D TANH "
            "LOGISTIC LESS GREATER_EQUAL"
        ),
        _INT8_INT16,
    ),
    "RELU": {_D.INT8: 2, _D.UINT8: 2, _D.INT16: 3},
    "ABS": {_D.INT8: 2, _D.UINT8: 2, _D.INT16: 3, _D.INT32: 5},
    "SIGN": {_D.INT32: 2},
    "TILE": {_D.INT8: 3},
    "EQUAL": {_D.INT8: 2, _D.INT16: 4},
    "LEAKY_RELU": {_D.INT16: 2},
    "RANGE": {_D.INT64: 2},
    "ARG_MAX": {_D.INT8: 2, _D.BOOL: 3},
    "ARG_MIN": {_D.INT8: 2, _D.BOOL: 3},
    "EXP": {_D.INT8: 2, _D.INT16: 2},
    "LOG": {_D.INT8: 2, _D.INT16: 2},
    "REDUCE_PROD": {_D.INT8: 2, _D.INT16: 2},
    "WHERE": dict.fromkeys((item for item in _D if item is not _D.BOOL), 2),
    "GELU": {_D.INT8: 2, _D.UINT8: 2},
    "FLOOR_DIV": {_D.INT8: 3, _D.INT16: 3, _D.FLOAT: 2},
    "FLOOR_MOD": {_D.INT8: 2, _D.INT16: 2},
    "REVERSE_V2": {_D.INT8: 3, _D.BOOL: 2},
    "PACK": {_D.INT8: 2, _D.INT16: 3, _D.UINT32: 4},
    "UNPACK": {_D.INT8: 2, _D.UINT8: 2, _D.BOOL: 3, _D.INT16: 4},
    "CONCATENATION": {_D.INT8: 2, _D.INT16: 3, _D.UINT32: 4},
    "BROADCAST_TO": {**dict.fromkeys(_D, 2), _D.INT8: 3, _D.INT16: 3},
    "SELECT_V2": {_D.UINT32: 2},
}


def _at(inputs: Inputs, index: int) -> ir.DataType | None:
    item = inputs[index] if index < len(inputs) else None
    return None if item is None else item.dtype


def _rank(inputs: Inputs) -> int:
    return max((item.rank for item in inputs[:2] if item is not None), default=0)


def _broadcasts(inputs: Inputs) -> bool:
    first, second = inputs[0], inputs[1]
    return first is not None and second is not None and first.shape != second.shape


def _scale(item: Tensor | Spec | None) -> float:
    return item.quant.scale[0] if item is not None and item.quant is not None else 0.0


def _per_channel(inputs: Inputs, index: int) -> bool:
    item = inputs[index] if index < len(inputs) else None
    return item is not None and item.quant is not None and item.quant.per_channel


def _conv(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    data, weight = inputs[0], inputs[1]
    if data is not None and weight is not None and data.shape[-1] != weight.shape[-1]:
        return 6
    match _at(inputs, 0), _at(inputs, 1):
        case _D.INT16, _D.INT8:
            return 4
        case _D.INT8, _D.INT8:
            return 3
        case _D.INT8, _D.INT4:
            return 7
        case _D.FLOAT, _D.INT8 | _D.INT4:
            return 5 if _per_channel(inputs, 1) else 2
    return 1


def _depthwise(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    match _at(inputs, 0), _at(inputs, 1):
        case _D.INT16, _D.INT8:
            return 5
        case _D.INT8, _D.INT8:
            return 3
        case _D.INT8, _D.INT4:
            return 7
        case _D.FLOAT, _D.INT8 | _D.INT4:
            return 6 if _per_channel(inputs, 1) else 4
    dilated = fields.get("dilationWFactor", 1) != 1 or fields.get("dilationHFactor", 1) != 1
    return 2 if dilated else 1


def _fully_connected(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    bias = inputs[2] if len(inputs) > 2 else None
    match _at(inputs, 0), _at(inputs, 1):
        case _D.INT16, _D.INT4:
            return 13
        case _D.INT16, _D.INT8:
            return 7
        case _D.FLOAT, _D.INT8 | _D.INT4 if _per_channel(inputs, 1):
            return 12
    if len(inputs) == 2 or bias is None:
        return 6
    if fields.get("keepNumDims"):
        return 5
    match _at(inputs, 0), _at(inputs, 1):
        case _D.INT8, _D.INT8:
            return 4
        case _D.INT8, _D.INT4:
            return 10
        case _D.FLOAT, _D.INT8 | _D.INT4:
            return 9 if fields.get("asymmetricQuantizeInputs") else 3
    return 1


def _transpose_conv(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if fields.get("fusedActivationFunction"):
        return 4
    if len(inputs) == 4 and inputs[3] is not None:
        return 3
    return 2 if _at(inputs, 1) == _D.INT8 else 1


def _add(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind is _D.INT16:
        return 3 if _scale(inputs[0]) else 5
    return {_D.INT64: 4, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _sub(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind in (_D.INT16, _D.INT64):
        return 5 if kind is _D.INT16 else 4
    if _broadcasts(inputs) and _rank(inputs) > 4:
        return 3
    return 2 if kind is _D.INT8 else 1


def _mul(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind is _D.INT16:
        return 4 if _scale(inputs[0]) else 7
    if kind in (_D.UINT32, _D.COMPLEX64, _D.INT64):
        return {_D.UINT32: 7, _D.COMPLEX64: 6, _D.INT64: 5}[kind]
    product = _scale(inputs[0]) * _scale(inputs[1])
    if product and _scale(outputs[0]) and product / _scale(outputs[0]) >= 1.0:
        return 3
    return 2 if kind is _D.INT8 else 1


def _div(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    return 2 if _broadcasts(inputs) and _rank(inputs) > 4 else 1


def _extreme(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if _at(inputs, 0) is _D.INT16:
        return 4
    if _broadcasts(inputs) and _rank(inputs) > 4:
        return 3
    return 2 if _at(inputs, 0) is _D.INT8 else 1


def _transpose(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind, rank = _at(inputs, 0), len(outputs[0].shape)
    if rank > 5:
        return 6
    if kind is _D.INT16:
        return 5
    if rank > 4:
        return 4
    return {_D.BOOL: 3, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _pad(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind, rank = _at(inputs, 0), len(outputs[0].shape)
    if kind is _D.BOOL:
        return 5
    if rank > 4:
        return 4
    return {_D.INT16: 3, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _slice(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind is _D.UINT32:
        return 6
    if len(outputs[0].shape) > 4:
        return 5
    return {_D.INT16: 4, _D.STRING: 3, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _strided_slice(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind is _D.UINT32:
        return 7
    if fields.get("ellipsisMask") or fields.get("newAxisMask"):
        return 6
    if inputs[0] is not None and inputs[0].rank > 4:
        return 4
    return {_D.BOOL: 3, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _gather(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind is _D.INT4:
        return 7
    if _at(inputs, 1) is _D.INT16:
        return 6
    if fields.get("batchDims"):
        return 5
    return {_D.INT16: 4, _D.BOOL: 3, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _gather_nd(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind is _D.BOOL:
        return 5
    return 4 if _at(inputs, 1) is _D.INT16 else 3 if kind is _D.INT16 else 1


def _resize(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if _at(inputs, 0) is _D.INT16:
        return 4
    if fields.get("halfPixelCenters"):
        return 3
    return 2 if _at(inputs, 0) is _D.INT8 else 1


def _resize_nearest(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if fields.get("alignCorners") and _at(inputs, 0) is not _D.INT16:
        return 3
    return _resize(inputs, outputs, fields)


def _split(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 1)
    return {_D.INT16: 4, _D.INT32: 3, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _space_batch(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if _at(inputs, 0) is _D.INT16:
        return 4
    if len(outputs[0].shape) != 4:
        return 3
    return 2 if _at(inputs, 0) is _D.INT8 else 1


def _dequantize(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 0)
    if kind in (_D.INT16, _D.FLOAT16, _D.INT4):
        return 6 if kind is _D.INT4 else 3
    if kind is _D.INT8:
        return 5 if _per_channel(inputs, 0) else 2
    return 1


def _quantize(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    quant = outputs[0].quant
    if outputs[0].dtype is _D.INT4 or _at(inputs, 0) is _D.INT4:
        return 4
    if quant is not None and quant.per_channel:
        return 3
    return 2 if outputs[0].dtype is _D.INT16 else 1


def _cast(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kinds = {_at(inputs, 0), outputs[0].dtype}
    for version, special in (
        (7, {_D.BFLOAT16}),
        (6, {_D.INT4}),
        (5, {_D.DOUBLE, _D.FLOAT16}),
        (4, {_D.UINT16}),
        (3, {_D.INT8}),
        (2, {_D.UINT32}),
    ):
        if kinds & special:
            return version
    return 1


def _batch_matmul(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if fields.get("asymmetricQuantizeInputs"):
        return 4
    kind = _at(inputs, 0)
    return {_D.INT16: 3, _D.INT8: 2}.get(kind, 1) if kind is not None else 1


def _fill(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    kind = _at(inputs, 1)
    table = {_D.FLOAT16: 4, _D.INT8: 3, _D.INT16: 3, _D.BOOL: 2}
    return table.get(kind, 1) if kind is not None else 1


def _topk(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if _D.INT16 in (_at(inputs, 0), _at(inputs, 1), outputs[1].dtype):
        return 3
    return 2 if _at(inputs, 0) is _D.INT8 else 1


def _select(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if any(item is not None and item.rank == 5 for item in inputs):
        return 3
    return 2 if _at(inputs, 1) is _D.INT8 else 1


def _dynamic_update(inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> int:
    if _at(inputs, 0) in (_D.INT16, _D.FLOAT16):
        return 4 if _at(inputs, 0) is _D.INT16 else 3
    return 2 if _at(inputs, 2) is _D.INT64 else 1


_SPECIAL: dict[str, Callable[[Inputs, Sequence[Spec], Mapping[str, Any]], int]] = {
    "ADD": _add,
    "BATCH_MATMUL": _batch_matmul,
    "BATCH_TO_SPACE_ND": _space_batch,
    "CAST": _cast,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _dequantize,
    "DIV": _div,
    "DYNAMIC_UPDATE_SLICE": _dynamic_update,
    "FILL": _fill,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "MAXIMUM": _extreme,
    "MINIMUM": _extreme,
    "MUL": _mul,
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _quantize,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "SELECT": _select,
    "SLICE": _slice,
    "SPACE_TO_BATCH_ND": _space_batch,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _sub,
    "TOPK_V2": _topk,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
}
