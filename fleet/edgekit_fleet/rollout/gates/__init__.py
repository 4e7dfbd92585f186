"""Gates, one file each: pure functions of a ring's evidence."""

from __future__ import annotations

from collections.abc import Callable

from edgekit_fleet.rollout.gates.base import (
    GATE_TYPES,
    Aggregate,
    Arm,
    DeviceEvidence,
    Evidence,
    GateResult,
    GateSpec,
    Verdict,
)
from edgekit_fleet.rollout.gates.failures import judge_failures
from edgekit_fleet.rollout.gates.latency import judge_latency
from edgekit_fleet.rollout.gates.predictions import judge_predictions
from edgekit_fleet.rollout.gates.probes import judge_probes

_GATES: dict[str, Callable[[GateSpec, Evidence], GateResult]] = {
    "failures": judge_failures,
    "latency": judge_latency,
    "probes": judge_probes,
    "predictions": judge_predictions,
}


def judge_gate(spec: GateSpec, evidence: Evidence) -> GateResult:
    """Run the gate that `spec` names; deterministic."""
    return _GATES[spec.type](spec, evidence)


__all__ = [
    "GATE_TYPES",
    "Aggregate",
    "Arm",
    "DeviceEvidence",
    "Evidence",
    "GateResult",
    "GateSpec",
    "Verdict",
    "judge_gate",
]
