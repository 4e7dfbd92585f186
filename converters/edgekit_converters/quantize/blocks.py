"""Weight-only compression: int4 or int8 weights in blocks, activations stay float.

A matrix of K x N gets one scale for each block of rows and column, as DequantizeLinear of opset 21
has it (`block_size`); scales are chosen per block for the least squared error. Only matrix products
and embeddings: convolutions' weights are too few and too sensitive for four bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.errors import Refusal
from edgekit_converters.quantize import grids
from edgekit_converters.quantize.graphs import clone, constant, finite_constant, remove_unused, store
from edgekit_converters.quantize.roles import array, integer

BLOCK = 32
_SMALLEST = 1024
"""Weights with fewer elements are left alone: they would not make the file smaller."""
_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)


def weight_only(model: ir.Model, kind: str = "int4", block: int = BLOCK) -> tuple[ir.Model, dict[str, Any]]:
    """A copy of the float graph with blockwise weights, and the facts.

    Raises:
        Refusal: no weight is large enough.
    """
    copy = clone(model)
    done: dict[str, ir.Value] = {}
    saved = 0
    for node in list(copy.graph):
        found = _weight(node)
        if found is None:
            continue
        index, axis = found
        value = node.inputs[index]
        assert value is not None
        name = str(value.name)
        if name not in done:
            finite_constant(node, index)
            done[name] = _stored(copy.graph, value, axis, kind, block)
            saved += int(constant(value).size)
        node.replace_input_with(index, done[name])
    if not done:
        raise Refusal(
            f"no matrix of {_SMALLEST} and more elements for {kind} weights; convolutions keep theirs",
            remedy="use int8 with calibration data, or fp16",
            code="nothing_quantized",
        )
    remove_unused(copy.graph)
    return copy, {"weights": sorted(done), "elements": saved, "type": kind, "block": block}


def rounded(weight: Any, axis: int, kind: str, block: int) -> tuple[Any, Any]:
    """Integers and block scales of a float matrix, blocks along `axis`."""
    moved = np.moveaxis(weight, axis, 0)
    rows = moved.shape[0]
    count = -(-rows // block)
    padded = np.zeros((count * block, *moved.shape[1:]), np.float32)
    padded[:rows] = moved
    parts = padded.reshape(count, block, *moved.shape[1:])
    most = grids.LIMITS[kind][1]
    peak = np.maximum(np.abs(parts).max(axis=1, keepdims=True), 1e-9)
    best, least = peak / most, None
    for shrink in _SHRINK:
        scale = (peak * shrink / most).astype(np.float32)
        whole = np.clip(np.rint(parts / scale), -most - 1, most)
        error = np.square(whole * scale - parts).sum(axis=1, keepdims=True)
        best = scale if least is None else np.where(error < least, scale, best)
        least = error if least is None else np.minimum(error, least)
    whole = np.clip(np.rint(parts / best), -most - 1, most).reshape(padded.shape)[:rows]
    return np.moveaxis(whole, 0, axis), np.moveaxis(best[:, 0].astype(np.float32), 0, axis)


def _weight(node: ir.Node) -> tuple[int, int] | None:
    """Position of a large constant matrix and its summed axis (of an embedding: its width)."""
    if node.op_type in ("MatMul", "Gemm"):
        index, axis = 1, 0
        if node.op_type == "Gemm" and integer(node, "transB", 0):
            axis = 1
    elif node.op_type == "Gather" and integer(node, "axis", 0) == 0:
        index, axis = 0, 1
    else:
        return None
    value = node.inputs[index]
    found = array(value)
    if found is None or value is None or value.dtype != ir.DataType.FLOAT or len(found.shape) != 2:
        return None
    return (index, axis) if constant(value).size >= _SMALLEST else None


def _stored(graph: ir.Graph, value: ir.Value, axis: int, kind: str, block: int) -> ir.Value:
    whole, scale = rounded(constant(value), axis, kind, block)
    name = str(value.name)
    stored = store(graph, f"{name}_quantized", whole.astype(grids.storage(kind)))
    scales = store(graph, f"{name}_scale", np.ascontiguousarray(scale))
    attributes = {"axis": ir.AttrInt64("axis", axis), "block_size": ir.AttrInt64("block_size", block)}
    back = ir.Node("", "DequantizeLinear", [stored, scales], attributes, name=f"{name}_dequantized")
    back.outputs[0].name = f"{name}_dequantized"
    back.outputs[0].type, back.outputs[0].shape = value.type, value.shape
    graph.insert_before(graph[0], [back])
    return back.outputs[0]
