"""The failures gate: share of devices on which the release failed, by exact Clopper–Pearson bounds.

The device is the unit. Counted are notified devices that have finished (see
`edgekit_fleet.rollout.counting`): one that reverted, failed, was rejected or timed out is a failure,
and so is one that serves with more than `error_share` model errors where its incumbent did not.
A single hardware may fail the gate on its own (Bonferroni over the hardwares and the whole);
passing is asked of the ring as a whole. Failing is quicker than succeeding, so that the first to
finish are not a fair sample: to FAIL, devices still on their way count as good.
Options: `error_share` (default 0.01).
"""

from __future__ import annotations

from edgekit_fleet.rollout.gates.base import (
    DeviceEvidence,
    Evidence,
    GateResult,
    GateSpec,
    no_evidence,
    percent,
    strata,
    verdict_of,
)
from edgekit_fleet.rollout.gates.exact import binomial_lower, binomial_tail, binomial_upper


def judge_failures(spec: GateSpec, evidence: Evidence) -> GateResult:
    """Judge the share of failed devices against ``spec.limit`` (a share)."""
    finished = tuple(d for d in evidence.canaries() if d.good or d.failed)
    if not finished:
        return no_evidence(spec, "no device has finished yet")
    failures = {d.device: why for d in finished if (why := _failure(d, spec))}
    n, k = len(finished), len(failures)
    upper, lower = binomial_upper(k, n, spec.confidence), binomial_lower(k, n, spec.confidence)
    p_fail, worst = _p_fail(evidence.canaries(), failures, spec.limit)
    pending = len(evidence.canaries()) - n
    enough = n >= evidence.min_n and not pending
    verdict = verdict_of(upper=upper, limit=spec.limit, p_fail=p_fail, alpha=spec.alpha, enough=enough)
    wanting = f", min_n {evidence.min_n}" if n < evidence.min_n else ""
    wanting += f", {pending} on their way" if pending else ""
    place = f", worst {worst}" if worst else ""
    return GateResult(
        gate=spec.label,
        type=spec.type,
        verdict=verdict,
        n=n,
        effect=k / n,
        lower=lower,
        upper=upper,
        limit=spec.limit,
        confidence=spec.confidence,
        p_fail=p_fail,
        reason=f"n={n}, {k} failed, bound {percent(upper)}, limit {percent(spec.limit)}{place}{wanting}",
        adverse=k / n > spec.limit,
        dry_run=spec.dry_run,
        detail={"failed": k, "pending": pending, "failures": dict(sorted(failures.items())[:50])},
    )


def _failure(device: DeviceEvidence, spec: GateSpec) -> str | None:
    allowed = float(spec.options.get("error_share", 0.01))
    if device.failed:
        return device.reason or "failed"
    now, before = device.candidate, device.incumbent
    if now.model_errors and now.error_share > max(allowed, before.error_share):
        return f"{now.model_errors} model errors in {now.requests} requests"
    return None


def _p_fail(counted: tuple[DeviceEvidence, ...], failures: dict[str, str], limit: float) -> tuple[float, str]:
    """p-value of "no more than `limit` fail anywhere", and the hardware it comes from (or "")."""
    groups = strata(counted)
    tests = {"": (len(failures), len(counted))}
    if len(groups) > 1:
        tests |= {
            name: (sum(d.device in failures for d in members), len(members))
            for name, members in groups.items()
        }
    tails = {name: binomial_tail(k, n, limit) if k else 1.0 for name, (k, n) in tests.items()}
    worst = min(tails, key=lambda name: (tails[name], name != ""))
    return min(1.0, len(tails) * tails[worst]), worst
