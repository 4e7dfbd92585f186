"""From the float hub to a target's QDQ graph: legalise, ranges, corrections, pairs, and the facts of it.

What each step decides lives in its own module; here they are put in order. Nothing here runs the
target's own runtime: the verdict does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters.errors import Refusal
from edgekit_converters.quantize import affine, qdq
from edgekit_converters.quantize.assign import activation_type, assign, key
from edgekit_converters.quantize.graphs import clone
from edgekit_converters.quantize.ranges import ranges as ranges_by
from edgekit_converters.quantize.roles import WEIGHTED
from edgekit_converters.quantize.statistics import load


def for_target(
    model: ir.Model,
    calibration: Path | None,
    rules: Rules,
    precision: str,
    *,
    supported: frozenset[str] | None = None,
    accepts: Callable[[ir.Node], bool] | None = None,
    samples: Path | None = None,
) -> tuple[ir.Model, dict[str, Any]]:
    """The QDQ form of the hub graph `model` for one target.

    Args:
        model: the canonical float graph that was calibrated.
        calibration: its stored calibration.
        rules: the target's.
        precision: ``int8`` or ``int16x8``.
        supported: op types that the target's lowering takes; others are decomposed first.
        accepts: the lowering's say on single nodes, see `hub.legalise`.
        samples: the calibration samples (npz by input name), for what has to run.

    Raises:
        Refusal: no calibration, or no op to quantize.
    """
    if calibration is None:
        raise Refusal(
            f"static {precision} needs calibration data",
            remedy="give --calibration FILE.npz with 100 or more real samples",
            code="needs_calibration",
        )
    folded = clone(model)
    affine.fold(folded.graph)
    work = _legalised(folded, supported, accepts)
    ranges = ranges_by(load(calibration), "minmax")
    result = clone(work)
    assignment = assign(result.graph, ranges, rules, activation_type(rules, precision))
    weighted = [node for node in result.graph if node.op_type in WEIGHTED]
    integer = [node for node in weighted if key(node) in assignment.ops]
    if not assignment.ops:
        raise Refusal(
            "no op of the graph can be quantized",
            remedy="use fp32: int8 would gain nothing",
            code="nothing_quantized",
        )
    names = {key(node): node.op_type for node in result.graph}
    qdq.write(result.graph, assignment, rules)
    facts: Mapping[str, Any] = {
        "ranges": "minmax",
        "quantized_ops": len(assignment.ops),
        "float_ops": {name: f"{names[name]}: {why}" for name, why in sorted(assignment.left.items())},
        "weighted_ops": [len(integer), len(weighted)],
        "split_heads": list(assignment.split),
    }
    return result, dict(facts)


def _legalised(
    model: ir.Model, supported: frozenset[str] | None, accepts: Callable[[ir.Node], bool] | None
) -> ir.Model:
    if supported is None:
        return model
    from edgekit_converters import hub

    return hub.legalise(model, supported, accepts)
