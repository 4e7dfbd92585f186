from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_fleet.rollout.gates import GateResult, GateSpec, Verdict
from edgekit_fleet.rollout.judge import Action, Look, correct, decide, judge_ring
from edgekit_fleet.rollout.plan import OnFail, OnInconclusive, RingPlan
from tests.fleet.rollout_makers import evidence, failed, good, probe, spec

RING = RingPlan(
    name="canary",
    gates=(spec("failures", 0.1), spec("probes", 0.05)),
    on_inconclusive=OnInconclusive.PROCEED,
)


def result(
    verdict: Verdict, p_fail: float = 1.0, *, adverse: bool = False, dry_run: bool = False
) -> GateResult:
    return GateResult(
        gate="g",
        type="failures",
        verdict=verdict,
        n=5,
        effect=0.0,
        lower=0.0,
        upper=1.0,
        limit=0.1,
        confidence=0.95,
        p_fail=p_fail,
        reason="n=5",
        adverse=adverse,
        dry_run=dry_run,
    )


PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def test_all_must_pass() -> None:
    assert decide(RING, (result(PASS), result(PASS)), Look.FINAL, good=3).verdict is PASS
    assert decide(RING, (result(PASS), result(OPEN)), Look.FINAL, good=3).verdict is OPEN


def test_fail_is_looked_at_before_pass() -> None:
    found = decide(RING, (result(PASS), result(FAIL, 0.001)), Look.FINAL, good=3)
    assert (found.verdict, found.action) == (FAIL, Action.ROLLBACK_ALL)


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        (OnFail.PAUSE, Action.PAUSE),
        (OnFail.ABORT, Action.ABORT),
        (OnFail.ROLLBACK_RING, Action.ROLLBACK_RING),
        (OnFail.ROLLBACK_ALL, Action.ROLLBACK_ALL),
    ],
)
def test_a_failed_ring_does_what_its_plan_says(policy: OnFail, action: Action) -> None:
    ring = replace(RING, on_fail=policy)
    assert decide(ring, (result(FAIL, 0.0),), Look.FINAL, good=1).action is action


def test_missing_evidence_proceeds_and_is_never_called_pass() -> None:
    found = judge_ring(RING, evidence(good("a", truth=probe("1" * 100, "1" * 100)), good("b")), Look.FINAL)
    assert (found.verdict, found.action) == (OPEN, Action.PROMOTE)
    assert "failures not proven (n=2, 0 failed, bound 77.6 %" in found.reason


def test_missing_evidence_pauses_where_the_plan_says_so() -> None:
    ring = replace(RING, on_inconclusive=OnInconclusive.PAUSE)
    assert judge_ring(ring, evidence(good("a")), Look.FINAL).action is Action.PAUSE


def test_evidence_against_the_release_never_proceeds() -> None:
    found = judge_ring(RING, evidence(failed("a"), good("b"), good("c")), Look.FINAL)
    assert (found.verdict, found.action) == (OPEN, Action.PAUSE)
    assert "evidence against it in failures" in found.reason


def test_a_ring_whose_only_canary_failed_never_proceeds() -> None:
    found = judge_ring(replace(RING, gates=()), evidence(failed("a")), Look.FINAL)
    assert found.action is Action.PAUSE
    assert "no device of the ring runs it" in found.reason


def test_a_dry_run_gate_is_shown_and_never_counts() -> None:
    found = decide(RING, (result(PASS), result(FAIL, 0.0, dry_run=True)), Look.FINAL, good=1)
    assert (found.verdict, found.action) == (PASS, Action.PROMOTE)
    assert found.results[1].why.startswith("dry run: failed")


def test_four_gates_do_not_make_four_times_the_false_alarms() -> None:
    specs = tuple(GateSpec(type="failures", limit=0.1, name=f"g{i}") for i in range(4))
    results = [result(FAIL, 0.03), result(PASS), result(PASS), result(PASS)]
    corrected = correct(specs, results, Look.FINAL)
    assert corrected[0].verdict is OPEN
    assert "after Holm over 4" in corrected[0].reason


def test_holm_steps_down_once_the_strongest_is_rejected() -> None:
    specs = tuple(GateSpec(type="failures", limit=0.1, name=f"g{i}") for i in range(4))
    results = [result(FAIL, 0.0001), result(FAIL, 0.0156), result(PASS), result(PASS)]
    assert [r.verdict for r in correct(specs, results, Look.FINAL)[:2]] == [FAIL, FAIL]


def test_an_early_look_fails_only_on_overwhelming_evidence() -> None:
    weak = (result(FAIL, 0.01),)
    specs = (GateSpec(type="failures", limit=0.1),)
    assert correct(specs, weak, Look.INTERIM)[0].verdict is OPEN
    assert correct(specs, (result(FAIL, 0.0005),), Look.INTERIM)[0].verdict is FAIL


def test_an_early_look_never_passes_a_ring() -> None:
    found = decide(RING, (result(PASS), result(PASS)), Look.INTERIM, good=9)
    assert found.action is Action.WAIT


VERDICTS = st.sampled_from([PASS, FAIL, OPEN])


@given(
    st.lists(st.tuples(VERDICTS, st.booleans()), min_size=1, max_size=6),
    st.sampled_from(list(OnInconclusive)),
)
def test_promotion_never_follows_a_fail(gates: list[tuple[Verdict, bool]], policy: OnInconclusive) -> None:
    ring = replace(RING, on_inconclusive=policy)
    results = tuple(result(v, 0.0 if v is FAIL else 1.0, adverse=bad) for v, bad in gates)
    found = decide(ring, results, Look.FINAL, good=2)
    if any(v is FAIL for v, _ in gates):
        assert found.verdict is FAIL
        assert found.action is not Action.PROMOTE
    if found.verdict is PASS:
        assert all(v is PASS for v, _ in gates)
