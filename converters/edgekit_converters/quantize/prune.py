"""Pruning: the largest share of zeros per layer that the verdict accepts.

The weights of least magnitude in a layer become zero; then scale and bias of each output channel are
estimated anew, so that its mean and spread on the calibration samples are what they were (what a batch
normalisation would learn, which by now lies in weights and bias). A hook (`quantize.finetune`) may train
the rest on: it is asked once the search has ended, how many more zeros all layers bear when it trains them.
The float graph is pruned, before any quantization; whether zeros are worth anything is the rules' say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters.errors import Refusal
from edgekit_converters.quantize import affine, levels
from edgekit_converters.quantize.graphs import clone, constant, remove_unused, store
from edgekit_converters.quantize.roles import WEIGHTED, array, roles
from edgekit_converters.quantize.running import runs

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SMALLEST = 512
_FEW = 32
Tune = Callable[[ir.Model, Mapping[str, Any]], ir.Model]
"""Takes a pruned model and masks (True where a weight stays) by the weight's name, gives it trained."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The pruned model and the share of zeros by layer (named by its first output).

    `tuned` says whether the finetuning function trained it.
    """

    model: ir.Model
    shares: Mapping[str, float]
    tuned: bool = False


def prune(
    model: ir.Model,
    inputs: Mapping[str, Any],
    accepted: Callable[[ir.Model], bool],
    rules: Rules,
    *,
    tune: Tune | None = None,
) -> Pruned:
    """Search the largest shares; `inputs` are calibration samples, `accepted` the verdict on a candidate.

    `tune` is called at most five times.

    Raises:
        Refusal: the runtime gains nothing from zeros, or no layer bears any.
    """
    require_gain(rules, "sparse")
    base = clone(model)
    affine.fold(base.graph)
    layers = prunable(base.graph)
    few = {name: value[:_FEW] for name, value in inputs.items()}
    wanted = _spreads(base, few, layers)

    def candidate(choice: Mapping[str, int]) -> ir.Model:
        return _with_zeros(base, few, {name: SHARES[level] for name, level in choice.items()}, wanted)

    choice = levels.strongest(layers, len(SHARES), lambda choice: accepted(candidate(choice)))
    trained: dict[tuple[int, ...], ir.Model] = {}
    if tune is not None:

        def after_training(choice: Mapping[str, int]) -> bool:
            model = candidate(choice)
            trained[tuple(choice.values())] = found = tune(model, masks(model, choice))
            return accepted(found)

        choice = levels.further(choice, len(SHARES), after_training)
    if not any(choice.values()):
        raise Refusal(
            "no layer bears a tenth of zeros within the tolerance",
            remedy="give --finetune file.py:function, which trains the remaining weights",
            code="nothing_pruned",
        )
    shares = {name: SHARES[level] for name, level in choice.items()}
    found = trained.get(tuple(choice.values()))
    return Pruned(model=found or candidate(choice), shares=shares, tuned=found is not None)


def masks(model: ir.Model, layers: Mapping[str, Any]) -> dict[str, Any]:
    """By name of each layer's weight in `model`: True where it is no zero."""
    nodes = [node for node in model.graph if str(node.outputs[0].name) in layers]
    return {str(node.inputs[1].name): constant(node.inputs[1]) != 0 for node in nodes if node.inputs[1]}


def require_gain(rules: Rules, form: str) -> None:
    """Refuse a compression that the runtime would only unpack.

    Raises:
        Refusal: always where `form` is not among what the rules say is stored compressed.
    """
    if form not in rules.compression:
        has = ", ".join(rules.compression) or "none"
        raise Refusal(
            f"{rules.name} gains neither size nor speed from {form} weights",
            remedy=f"forms it stores compressed: {has}",
            code="no_gain",
        )


def prunable(graph: ir.Graph) -> list[str]:
    """Layers with a large constant weight, the largest first."""
    sizes = {
        str(node.outputs[0].name): int(constant(node.inputs[1]).size)
        for node in graph
        if node.op_type in WEIGHTED and array(node.inputs[1]) is not None
    }
    large = [name for name, size in sizes.items() if size >= _SMALLEST]
    return sorted(large, key=lambda name: (-sizes[name], name))


def mask(weight: Any, share: float) -> Any:
    """True where a weight stays: the `share` of least magnitude goes."""
    count = int(share * weight.size)
    if count == 0:
        return np.ones(weight.shape, bool)
    order = np.argsort(np.abs(weight).reshape(-1), kind="stable")
    kept = np.ones(weight.size, bool)
    kept[order[:count]] = False
    return kept.reshape(weight.shape)


def _with_zeros(
    base: ir.Model,
    inputs: Mapping[str, Any],
    shares: Mapping[str, float],
    wanted: Mapping[str, Any],
) -> ir.Model:
    copy = clone(base)
    nodes = {str(node.outputs[0].name): node for node in copy.graph if str(node.outputs[0].name) in shares}
    for name, node in nodes.items():
        weight = constant(node.inputs[1])
        data = (weight * mask(weight, shares[name])).astype(np.float32)
        node.replace_input_with(1, store(copy.graph, f"{name}_pruned", data))
    remove_unused(copy.graph)
    for name in nodes:  # in the graph's order: what a layer reads is right by then
        if shares[name]:
            _estimate_again(copy, inputs, [name], wanted)
    return copy


def _estimate_again(
    model: ir.Model, inputs: Mapping[str, Any], layers: Sequence[str], wanted: Mapping[str, Any]
) -> None:
    """Scale and shift each output channel to the mean and spread that it had."""
    found = _spreads(model, inputs, layers)
    for node in list(model.graph):
        name = str(node.outputs[0].name)
        if name not in found or node.op_type == "MatMul" or roles(node).axis is None:
            continue
        (mean, spread), (old_mean, old_spread) = found[name], wanted[name]
        alive = (spread > 1e-6) & (old_spread > 1e-6)
        factor = np.where(alive, old_spread / np.maximum(spread, 1e-12), 1.0)
        weight = constant(node.inputs[1])
        axis = roles(node).axis or 0
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0.0
        scaled = (weight * factor.reshape(shape)).astype(np.float32)
        shifted = (old_mean - (mean - bias) * factor).astype(np.float32)
        node.replace_input_with(1, store(model.graph, f"{name}_weight", scaled))
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, store(model.graph, f"{name}_bias", shifted))
    remove_unused(model.graph)


def _spreads(model: ir.Model, inputs: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    """Mean and standard deviation by output channel of every layer on the samples."""
    sums: dict[str, Any] = {}
    ends = {str(node.outputs[0].name): node.op_type for node in model.graph}
    for values in runs(model, inputs, list(layers), optimized=True):
        for name, value in values.items():
            axis = 1 if ends[name].startswith("Conv") else value.ndim - 1
            flat = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1).astype(np.float64)
            part = np.stack([np.full(len(flat), flat.shape[1]), flat.sum(1), np.square(flat).sum(1)])
            sums[name] = sums.get(name, 0) + part
    found = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        found[name] = (mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0)))
    return found
