"""The judge: from gate results to what the ring does next. Pure.

FAIL is looked at before PASS. Any gate may fail a ring; its p-values are corrected over all gates
(Holm), so that four gates do not make four times the false alarms. All gates must pass for a PASS;
that needs no correction. Looks before the end of the soak may only fail a ring, and only at
p ≤ `INTERIM_ALPHA` (Haybittle–Peto), which leaves the final look its level.

An inconclusive ring proceeds only where evidence is *missing*. Where a point estimate lies outside
its limit, or no device of the ring runs the release, it pauses whatever `on_inconclusive` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from edgekit_fleet.rollout.gates import Evidence, GateResult, GateSpec, Verdict, judge_gate
from edgekit_fleet.rollout.plan import OnFail, OnInconclusive, RingPlan

INTERIM_ALPHA = 0.001


class Look(StrEnum):
    """When the judge looks: while devices are on their way or soaking, or at the end."""

    INTERIM = "interim"
    FINAL = "final"


class Action(StrEnum):
    """What follows from a judgement."""

    WAIT = "wait"
    PROMOTE = "promote"
    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK_RING = "rollback_ring"
    ROLLBACK_ALL = "rollback_all"


_ON_FAIL = {
    OnFail.PAUSE: Action.PAUSE,
    OnFail.ABORT: Action.ABORT,
    OnFail.ROLLBACK_RING: Action.ROLLBACK_RING,
    OnFail.ROLLBACK_ALL: Action.ROLLBACK_ALL,
}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A ring's verdict, what follows, and the gates' results after correction."""

    verdict: Verdict
    action: Action
    look: Look
    reason: str
    results: tuple[GateResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "verdict": self.verdict.value,
            "action": self.action.value,
            "look": self.look.value,
            "reason": self.reason,
            "gates": [result.to_dict() for result in self.results],
        }


def judge_ring(ring: RingPlan, evidence: Evidence, look: Look) -> Judgement:
    """Run the ring's gates on the evidence and decide."""
    results = tuple(judge_gate(spec, evidence) for spec in ring.gates)
    corrected = correct(ring.gates, results, look)
    return decide(ring, corrected, look, good=sum(d.good for d in evidence.canaries()))


def correct(specs: Sequence[GateSpec], results: Sequence[GateResult], look: Look) -> tuple[GateResult, ...]:
    """Holm over the gates that count: a FAIL that does not survive becomes INCONCLUSIVE, and says so."""
    counting = sorted((i for i, r in enumerate(results) if not r.dry_run), key=lambda i: results[i].p_fail)
    adjusted: dict[int, float] = {}
    running = 0.0
    for rank, index in enumerate(counting):
        running = max(running, min(1.0, (len(counting) - rank) * results[index].p_fail))
        adjusted[index] = running
    return tuple(
        _corrected(result, adjusted.get(i, result.p_fail), specs[i].alpha, look, len(counting))
        for i, result in enumerate(results)
    )


def _corrected(result: GateResult, p_value: float, alpha: float, look: Look, gates: int) -> GateResult:
    level = min(alpha, INTERIM_ALPHA) if look is Look.INTERIM else alpha
    noted = replace(result, detail={**result.detail, "p_holm": float(f"{p_value:.6g}")})
    if result.verdict is not Verdict.FAIL or p_value <= level:
        return noted
    why = f"p {p_value:.2g} after Holm over {gates}" if gates > 1 else f"p {p_value:.2g}"
    return replace(
        noted, verdict=Verdict.INCONCLUSIVE, adverse=True, reason=f"{result.reason}; {why}, {level:g} needed"
    )


def decide(ring: RingPlan, results: tuple[GateResult, ...], look: Look, *, good: int) -> Judgement:
    """Combine corrected results; `good` is the number of counted devices that run the release."""
    counting = tuple(result for result in results if not result.dry_run)
    failed = tuple(result for result in counting if result.verdict is Verdict.FAIL)

    def answer(verdict: Verdict, action: Action, reason: str) -> Judgement:
        return Judgement(verdict=verdict, action=action, look=look, reason=reason, results=results)

    if failed:
        return answer(Verdict.FAIL, _ON_FAIL[ring.on_fail], _say(failed))
    if look is Look.INTERIM:
        return answer(Verdict.INCONCLUSIVE, Action.WAIT, "nothing is decided before the soak ends")
    if counting and all(result.verdict is Verdict.PASS for result in counting):
        return answer(Verdict.PASS, Action.PROMOTE, f"all {len(counting)} gates passed")
    open_gates = tuple(result for result in counting if result.verdict is not Verdict.PASS)
    reason = _say(open_gates) if open_gates else "not proven (no gate was asked for)"
    if not good:
        return answer(Verdict.INCONCLUSIVE, Action.PAUSE, f"no device of the ring runs it; {reason}")
    against = tuple(result for result in open_gates if result.adverse)
    if against:
        names = ", ".join(result.gate for result in against)
        return answer(Verdict.INCONCLUSIVE, Action.PAUSE, f"evidence against it in {names}; {reason}")
    proceed = ring.on_inconclusive is OnInconclusive.PROCEED
    return answer(Verdict.INCONCLUSIVE, Action.PROMOTE if proceed else Action.PAUSE, reason)


def _say(results: tuple[GateResult, ...]) -> str:
    return "; ".join(f"{result.gate} {result.why}" for result in results)
