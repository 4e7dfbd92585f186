"""Quantization parameters as TI's tools read them: the ranges of every layer, as protobuf text.

The tools take ranges only for symmetric quantization of networks that run whole in one subgraph; elsewhere
the file is for reading, and the tools calibrate on the frames. No tool of TI has read this file here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit_converters.quantize.emulate import result_names
from edgekit_converters.quantize.grids import LIMITS
from edgekit_converters.quantize.roles import array, roles
from edgekit_converters.targets.tidl.graphs import biases
from edgekit_converters.targets.tidl.made import Made

_POOL = "TIDL_PoolingLayer"
_LAYERS = {
    "Conv": "TIDL_ConvolutionLayer",
    "ConvTranspose": "TIDL_Deconv2DLayer",
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool"), _POOL),
    "Relu": "TIDL_ReLULayer",
    "PRelu": "TIDL_PReLULayer",
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), "TIDL_EltWiseLayer"),
    **dict.fromkeys(("Gemm", "MatMul"), "TIDL_InnerProductLayer"),
    "Softmax": "TIDL_SoftMaxLayer",
    "BatchNormalization": "TIDL_BatchNormLayer",
    **dict.fromkeys(("Slice", "Split"), "TIDL_SliceLayer"),
    "LayerNormalization": "TIDL_LayerNormLayer",
    "InstanceNormalization": "TIDL_InstanceNormLayer",
    **dict.fromkeys(("ReduceMax", "ReduceMin"), "TIDL_ReduceLayer"),
    "Elu": "TIDL_ELULayer",
    "Gelu": "TIDL_GELULayer",
}
_LAST = np.finfo(np.float32)


def quant_params(made: Made) -> str:
    """The file's text: the data layers, then every accelerated node in the graph's order."""
    found = _Reader(made)
    layers = [*found.inputs(), *found.nodes()]
    head = [f"num_layers: {len(layers)}", "quant_type: SYMMETRIC", "calib_type: PERTENSOR"]
    if not found.symmetric:
        head[1:] = ["quant_type: ASYMMETRIC", "calib_type: PERCHANNEL"]
    return "\n".join([*head, *layers])


def usable(made: Made) -> bool:
    """Whether TI's tools take the file: symmetric, and the whole network in one subgraph."""
    rule = made.rules.rule("Conv")
    return rule is not None and rule.activations_symmetric and made.cut.whole


class _Reader:
    """Ranges out of the emulation: what each pair of QuantizeLinear and DequantizeLinear can say."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._places = result_names(made.emulation)
        self._values = {str(item.name): item for node in made.emulation.graph for item in node.outputs}
        self._biases = biases(made.work)
        rule = made.rules.rule("Conv")
        self.symmetric = rule is not None and rule.activations_symmetric

    def inputs(self) -> Iterator[str]:
        """A data layer an input."""
        for value in self._made.work.graph.inputs:
            span, bits = self._span(str(value.name))
            yield _layer(str(value.name), "TIDL_DataLayer", bits, [_tensor("outputs", *span)])

    def nodes(self) -> Iterator[str]:
        """One layer a node."""
        for node in self._made.work.graph:
            name = str(node.outputs[0].name)
            if name in self._made.cut.refused:
                continue
            span, bits = self._span(name)
            parts = [_tensor("outputs", *span)]
            weight = self._weight(node)
            if weight is not None:
                parts.append(_tensor("weights", float(weight.min()), float(weight.max())))
            if name in self._biases:
                bias = self._biases[name].reshape(-1)
                parts.append(_tensor("bias", float(bias.min()), float(bias.max()), bias))
            yield _layer(name, _LAYERS.get(node.op_type, f"TIDL_{node.op_type}Layer"), bits, parts)

    def _weight(self, node: ir.Node) -> Any:
        index = roles(node).weight
        known = None if index is None else array(node.inputs[index])
        return None if known is None else known.numpy()

    def _span(self, name: str) -> tuple[tuple[float, float], int]:
        """Least and largest value and the bits of a tensor; what a merged activation follows has its grid."""
        pair = self._values[self._places[name]].producer() if name in self._places else None
        if pair is None:
            return self._merged(name)
        scale, zero = (array(pair.inputs[i]) for i in (1, 2))
        assert scale is not None
        assert zero is not None
        step, point, kind = float(scale.numpy()), int(zero.numpy()), str(zero.numpy().dtype)
        low, high = LIMITS[kind]
        return ((low - point) * step, (high - point) * step), 16 if kind.endswith("16") else 8

    def _merged(self, name: str) -> tuple[tuple[float, float], int]:
        for node in self._made.work.graph:
            read = [str(item.name) for item in node.inputs if item is not None]
            if name in read[:1] and str(node.outputs[0].name) in self._places:
                return self._span(str(node.outputs[0].name))
        return (float(_LAST.min), float(_LAST.max)), 8


def _layer(name: str, kind: str, bits: int, parts: list[str]) -> str:
    text = name.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(
        [
            "layers {",
            f'  layer_name: "{text}"',
            f'  layer_type: "{kind}"',
            f"  bit_depth: {bits}",
            *parts,
            "}",
        ]
    )


def _tensor(field: str, low: float, high: float, values: Any = ()) -> str:
    size = len(values) or 1
    numbers = [f"    value: {float(item):.9g}" for item in values]
    lines = [
        f"  {field} {{",
        f"    min: {low:.9g}",
        f"    max: {high:.9g}",
        f"    size: {size}",
        *numbers,
        "  }",
    ]
    return "\n".join(lines)
