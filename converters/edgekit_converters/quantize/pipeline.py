"""From the float hub to a target's QDQ graph: legalise, ranges, corrections, pairs, rescue, and the facts.

What each step decides lives in its own module; here they are put in order and given what they measure
with. Nothing here runs the target's own runtime: the verdict does that. While recipes are compared
the QDQ graph runs optimized (integer kernels, many times faster); the facts come from the emulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays
from edgekit_converters.onnx_session import REFUSALS
from edgekit_converters.quantize import affine, analysis, calibration, equalize, qdq
from edgekit_converters.quantize.assign import FLOAT, Assignment, activation_type, assign, key
from edgekit_converters.quantize.blocks import weight_only
from edgekit_converters.quantize.emulate import result_names
from edgekit_converters.quantize.graphs import clone, multiplications, weight_sizes
from edgekit_converters.quantize.parts import float_parts
from edgekit_converters.quantize.ranges import METHODS, Ranges
from edgekit_converters.quantize.rescue import Rescue, cost, rescue
from edgekit_converters.quantize.roles import MOVERS, WEIGHTED
from edgekit_converters.quantize.running import float_tensors, runs
from edgekit_converters.quantize.sanity import doubts
from edgekit_converters.quantize.search import Found, Recipe, search
from edgekit_converters.quantize.statistics import Statistics, Tensor, load

GOAL = 20.0
"""dB at every output below which layers are rescued."""
WEIGHT_ONLY = {"int4": "int4", "w8": "int8"}
_SCORED = 32
_SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
_EXPLAINED = 8
_STEP = 16
Accepts = Callable[[ir.Node], bool]


def for_target(
    model: ir.Model,
    calibrated: Path | None,
    rules: Rules,
    precision: str,
    *,
    supported: frozenset[str] | None = None,
    accepts: Accepts | None = None,
    samples: Path | None = None,
    goal: float = GOAL,
    floats: frozenset[str] = frozenset(),
) -> tuple[ir.Model, dict[str, Any]]:
    """The QDQ form of the hub graph `model` for one target. A graph that is quantized already is kept.

    Args:
        model: the canonical float graph that was calibrated.
        calibrated: its stored calibration.
        rules: the target's.
        precision: ``int8`` or ``int16x8``; ``int4`` and ``w8`` (weights alone, in blocks) need no
            calibration.
        supported: op types that the target's lowering takes; others are decomposed first.
        accepts: the lowering's say on single nodes, see `hub.legalise`.
        samples: the calibration samples (npz by input name). Without them nothing is measured: MinMax
            ranges, bias correction, no rescue.
        goal: signal to noise in dB at every output; layers are rescued below it.
        floats: first outputs of nodes that the accelerator does not compute.

    Raises:
        Refusal: no calibration, or no op to quantize.
    """
    folded = clone(model)
    affine.fold(folded.graph)
    if any(node.op_type == "QuantizeLinear" for node in folded.graph):
        return _legalised(folded, supported, accepts), {"recipe": ["as the source is quantized"]}
    if precision in WEIGHT_ONLY:
        return weight_only(_legalised(folded, supported, accepts), WEIGHT_ONLY[precision])
    if calibrated is None:
        raise Refusal(
            f"static {precision} needs calibration data",
            remedy="give --calibration FILE.npz with 100 or more real samples",
            code="needs_calibration",
        )
    inputs = None if samples is None else load_arrays(samples)
    bench = _Bench(folded, load(calibrated), rules, precision, inputs, (supported, accepts), floats)
    found = bench.search() if inputs is not None else None
    recipe = found.recipe if found is not None else Recipe(corrected=True)
    before = bench.outcome(recipe) if found is not None else goal
    saved = bench.rescue(recipe, goal) if before < goal else None
    result, assignment = bench.write(recipe, saved.layers if saved is not None else ())
    if saved is not None and not assignment.ops:
        # A rescue that leaves nothing in integers is none: the verdict judges the plain form.
        saved = None
        result, assignment = bench.write(recipe, ())
    if not assignment.ops:
        raise Refusal(
            "no op of the graph can be quantized",
            remedy="use fp32: int8 would gain nothing",
            code="nothing_quantized",
        )
    facts = bench.facts(recipe, found, result, assignment)
    if found is not None:
        facts["snr_db"] = round(before if saved is None else saved.score, 2)
    if saved is not None:
        facts["rescue"] = {"snr_before": round(before, 2), **bench.explained(saved)}
    return result, facts


class _Bench:
    """The float graph, what is known of it, and the means to try a recipe."""

    def __init__(
        self,
        model: ir.Model,
        statistics: Statistics,
        rules: Rules,
        precision: str,
        inputs: Mapping[str, Any] | None,
        lowering: tuple[frozenset[str] | None, Accepts | None],
        floats: frozenset[str] = frozenset(),
    ) -> None:
        self._model = model
        self._stored = statistics
        self._rules = rules
        self._precision = precision
        self._kind = activation_type(rules, precision)
        self._inputs = inputs
        self._lowering = lowering
        self._few = {} if inputs is None else _some(inputs, _SCORED)
        self._graphs: dict[tuple[str, ...], tuple[ir.Model, Statistics]] = {}
        self._graphs[()] = self._complete(model, statistics.tensors)
        parts = float_parts(model.graph, self._graphs[()][0].graph, rules, self._kind)
        self._whole = parts | floats
        self._memo: qdq.Memo = {}
        self._expected: dict[tuple[str, ...], list[Any]] = {}
        self._judged = [_before_squashing(item) for item in _float_outputs(model)]

    def search(self) -> Found:
        """The best recipe by measured score."""
        known = self._stored.tensors
        scalings = [kind for kind in equalize.KINDS if equalize.equalized(self._model, known, kind)[1]]
        methods = [name for name in METHODS if name != "minmax"] if self._kind != "int16" else []
        finer = any(
            len({rule.weights_per_channel for rule in self._rules.ops if op in rule.ops}) > 1
            for op in {node.op_type for node in self._model.graph}
        )
        return search(self.score, methods=methods, scalings=scalings, finer=finer)

    def score(self, recipe: Recipe) -> float:
        """Least signal to noise over the judged tensors: outputs, or what a last softmax reads.

        Probabilities near 0 and 1 hide most of the noise, and a few samples in between are all of it.
        """
        return self._snr(self.write(recipe, ())[0], self._judged)

    def outcome(self, recipe: Recipe, moved: Sequence[str] = ()) -> float:
        """Least signal to noise over the float outputs themselves."""
        return self._snr(self.write(recipe, moved)[0], _float_outputs(self._model))

    def _snr(self, quantized: ir.Model, values: Sequence[ir.Value]) -> float:
        if not values:
            return float("inf")
        names = tuple(str(item.name) for item in values)
        if names not in self._expected:
            self._expected[names] = self._tensors(self._model, names)
        places = result_names(quantized)
        found = self._tensors(quantized, [places.get(name, name) for name in names])
        pairs = zip(self._expected[names], found, strict=True)
        return min((analysis.snr(a, b) for a, b in pairs), default=float("inf"))

    def write(self, recipe: Recipe, moved: Sequence[str]) -> tuple[ir.Model, Assignment]:
        """The QDQ graph by `recipe`, layers `moved` to what the runtime has for them."""
        model, statistics = self._graph(recipe)
        copy = clone(model)
        means = {name: item.means for name, item in statistics.tensors.items() if item.means is not None}
        overrides = {**dict.fromkeys(self._whole, FLOAT), **dict.fromkeys(moved, self._rules.rescue)}
        ranges = Ranges(statistics, recipe.method)
        assignment = assign(copy.graph, ranges, self._rules, self._kind, overrides, finer=recipe.finer)
        qdq.write(copy.graph, assignment, self._rules, means if recipe.corrected else None, self._memo)
        return copy, assignment

    def rescue(self, recipe: Recipe, goal: float) -> Rescue:
        """Move the fewest layers that bring the score to `goal`."""
        quantized, assignment = self.write(recipe, ())
        layers = analysis.compare(self._graph(recipe)[0], quantized, _some(self._few, _EXPLAINED))
        ranked = [item.name for item in analysis.rank(layers) if item.name in assignment.ops]
        return rescue(ranked, lambda moved: self.outcome(recipe, moved), goal)

    def facts(
        self,
        recipe: Recipe,
        found: Found | None,
        result: ir.Model,
        assignment: Assignment,
    ) -> dict[str, Any]:
        """What was done and what it did, JSON-ready."""
        model, _ = self._graph(recipe)
        kinds = {key(node): node.op_type for node in model.graph}
        weighted = [name for name, kind in kinds.items() if kind in WEIGHTED]
        facts: dict[str, Any] = {
            "recipe": recipe.words(),
            "quantized_ops": len(assignment.ops),
            "weighted_ops": [sum(name in assignment.ops for name in weighted), len(weighted)],
            "float_ops": {name: f"{kinds[name]}: {why}" for name, why in sorted(assignment.left.items())},
            "split_heads": list(assignment.split),
            "doubts": list(doubts(self._stored)),
        }
        if found is not None:
            facts["tried"] = [[" + ".join(item.words()), round(value, 2)] for item, value in found.tried]
        if self._inputs is not None:
            layers = analysis.compare(model, result, _some(self._few, _EXPLAINED))
            facts["layers"] = [item.to_dict() for item in layers]
        return facts

    def explained(self, saved: Rescue) -> dict[str, Any]:
        """What a rescue did and what it costs."""
        kind, model = self._rules.rescue, self._graphs[()][0]
        sizes = weight_sizes(model.graph)
        price = cost(saved.layers, sizes, multiplications(model.graph), kind)
        # Weights of 16 bit are a byte more each; where activations alone have 16 bits, nothing grows.
        wide = any(kind in item.weights and kind in item.activations for item in self._rules.ops)
        return {
            "layers": list(saved.layers),
            "to": kind,
            "reached": saved.reached,
            "snr_after": round(saved.score, 2),
            "more_bytes": price.bytes + sum(sizes.get(item, 0) for item in saved.layers if wide),
            "share_of_work": round(price.share, 3),
            "runs": saved.runs,
        }

    def _graph(self, recipe: Recipe) -> tuple[ir.Model, Statistics]:
        """The legalised float graph with the recipe's factors moved, and its statistics."""
        if recipe.scaled not in self._graphs:
            model, tensors = self._model, dict(self._stored.tensors)
            for kind in recipe.scaled:
                model, changed = equalize.equalized(model, tensors, kind)
                tensors |= changed
            self._graphs[recipe.scaled] = self._complete(model, tensors)
        return self._graphs[recipe.scaled]

    def _complete(self, model: ir.Model, tensors: Mapping[str, Tensor]) -> tuple[ir.Model, Statistics]:
        """Legalise, and measure the tensors that this made and the stored calibration does not know."""
        work = _legalised(model, *self._lowering)
        unneeded = {name for name, op in calibration.merged(work).items() if self._merges(op)}
        missing = [
            name
            for name in dict.fromkeys(float_tensors(work))
            if name not in tensors and name not in unneeded
        ]
        more: Mapping[str, Tensor] = {}
        if missing and self._inputs is not None:
            more = calibration.measure(work, self._inputs, missing).tensors
        return work, Statistics(tensors={**tensors, **more}, samples=self._stored.samples)

    def _merges(self, op: str) -> bool:
        """Whether a Relu behind `op` is part of it, or the op is no integer op at all."""
        rule = self._rules.rule(op, self._kind)
        return rule is None or rule.merges_activation

    def _tensors(self, model: ir.Model, names: Sequence[str]) -> list[Any]:
        try:
            parts = list(runs(model, self._few, names, optimized=True, step=_STEP))
        except REFUSALS:
            # onnxruntime 1.31 makes int8 pairs uint8 on x86 and trips over those it moved past a transpose.
            parts = list(runs(model, self._few, names, optimized=False, step=_STEP))
        return [np.concatenate([part[name] for part in parts]) for name in names]


def _float_outputs(model: ir.Model) -> list[ir.Value]:
    """What can be judged in dB: the float outputs, or where there is none what integer ones are made of."""
    found = [item for item in model.graph.outputs if item.dtype == ir.DataType.FLOAT]
    return found or [item for item in map(_float_behind, model.graph.outputs) if item is not None]


def _float_behind(output: ir.Value) -> ir.Value | None:
    value: ir.Value | None = output
    while value is not None and value.dtype != ir.DataType.FLOAT:
        node = value.producer()
        value = node.inputs[0] if node is not None and node.inputs else None
    return value if value is not None and value.producer() is not None else None


def _before_squashing(output: ir.Value) -> ir.Value:
    """What the softmax or sigmoid at the end reads, else the output."""
    value: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in _SQUASHING and node.op_type not in MOVERS:
            break
        value = node.inputs[0]
        if node.op_type in _SQUASHING and value is not None:
            return value
    return output


def _some(inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
    """At most `count` samples, spread evenly."""
    total = len(next(iter(inputs.values())))
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
    return {name: value[chosen] for name, value in inputs.items()}


def _legalised(model: ir.Model, supported: frozenset[str] | None, accepts: Accepts | None) -> ir.Model:
    if supported is None:
        return model
    from edgekit_converters import hub

    return hub.legalise(model, supported, accepts)
