"""Package probes: a few samples, the variant's own outputs, and how far runtimes may differ on them.

The tolerance is measured: the largest difference between kernel sets and thread counts over all
evaluation samples, and at least one step of the output's resolution. Probes of classifiers are taken
where the two best classes lie clearly apart, one class after another, so that a device that computes
the same decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.package import Tensor
from edgekit_converters.verify.scores import class_scores

Array = NDArray[Any]
COUNT = 16
_FLOOR = {"fp32": 1e-5, "fp16": 2e-3, "dynamic": 8e-3, "int8": 8e-3}
"""Least tolerance as a share of the output's range, where the output itself is not quantized."""
_COARSE = 8e-3
"""The same for every other precision."""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Arrays as they stand in the npz, the tolerance, and the agreement asked for."""

    arrays: Mapping[str, Array]
    n: int
    atol: float
    argmax_agreement: float | None


def make_probes(
    *,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    spreads: Mapping[str, Array],
    ports: tuple[Tensor, ...],
    precision: str,
    classifier: str | None,
    activation: str = "none",
) -> Probes:
    """Choose samples and a tolerance.

    Args:
        inputs: evaluation samples by name.
        outputs: what the variant gave for them.
        spreads: per output and sample the largest difference between kernel sets and threads.
        ports: the artifact's outputs.
        precision: of the variant.
        classifier: name of the output that names a class, or None.
        activation: of that output.
    """
    # Chosen classes are the same or not: they set no tolerance where there are scores beside them, and are
    # compared where all kernels here agree.
    chosen_ones = [p for p in ports if outputs[p.name].dtype.kind in "biu"]
    measured = [p for p in ports if p not in chosen_ones] or list(ports)
    atol = max(_tolerance(outputs[p.name], spreads[p.name], p, precision) for p in measured)
    n = len(next(iter(outputs.values())))
    sure = np.ones(n, bool)
    for port in chosen_ones if len(measured) < len(ports) else ():
        sure &= spreads[port.name] == 0
    chosen = (
        _clear(class_scores(outputs[classifier], activation), atol, sure)
        if classifier
        else np.flatnonzero(sure)[:COUNT]
    )
    agreement = None
    if classifier and len(chosen):
        agreement = 1.0
    if not len(chosen):
        chosen = np.flatnonzero(sure)[:COUNT] if sure.any() else np.arange(min(n, COUNT))
    arrays: dict[str, Array] = {f"in:{name}": array[chosen] for name, array in inputs.items()}
    arrays.update({f"out:{port.name}": outputs[port.name][chosen] for port in ports})
    return Probes(arrays=arrays, n=len(chosen), atol=atol, argmax_agreement=agreement)


def _tolerance(output: Array, spread: Array, port: Tensor, precision: str) -> float:
    if port.quantization is not None:
        floor = port.quantization.scale
    else:
        floor = _FLOOR.get(precision, _COARSE) * (float(output.max()) - float(output.min()) or 1.0)
    measured = max(float(spread.max()), floor)
    # Rounded up, so that the bytes do not hang on the last bits of a sum.
    return float(f"{measured * 1.005:.2e}")


def _clear(output: Array, atol: float, sure: Array) -> Array:
    """Up to COUNT of the `sure` samples whose best class leads by more than twice the tolerance, by class."""
    flat = output.astype(np.float64).reshape(len(output), -1)
    ordered = np.sort(flat, axis=1)
    lead = ordered[:, -1] - ordered[:, -2] if flat.shape[1] > 1 else np.zeros(len(flat))
    good = np.flatnonzero((lead > 2 * atol) & sure)
    classes = flat.argmax(axis=1)
    turn = np.zeros(len(flat), int)
    for name in np.unique(classes[good]):
        members = good[classes[good] == name]
        turn[members] = np.arange(len(members))
    order = good[np.lexsort((classes[good], turn[good]))]
    return np.sort(order[:COUNT])
