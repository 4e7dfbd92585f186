from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_fleet.rollout.gates import Aggregate, DeviceEvidence, Verdict, judge_gate
from tests.fleet.rollout_makers import evidence, failed, good, spec

GATE = spec("failures", 0.1)


def test_two_good_canaries_prove_nothing_and_the_bound_is_printed() -> None:
    result = judge_gate(GATE, evidence(good("a"), good("b")))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "n=2" in result.reason
    assert "bound 77.6 %" in result.reason
    assert result.why.startswith("not proven (")


@pytest.mark.parametrize(("n", "bound"), [(20, 0.139), (60, 0.049), (299, 0.010)])
def test_known_bounds_of_no_failures(n: int, bound: float) -> None:
    result = judge_gate(GATE, evidence(*(good(f"d{i}") for i in range(n))))
    assert result.upper == pytest.approx(bound, abs=5e-4)


def test_enough_good_devices_pass() -> None:
    assert judge_gate(GATE, evidence(*(good(f"d{i}") for i in range(29)))).verdict is Verdict.PASS


def test_three_of_three_failed_is_a_fail() -> None:
    result = judge_gate(GATE, evidence(failed("a"), failed("b"), failed("c")))
    assert result.verdict is Verdict.FAIL
    assert result.p_fail == pytest.approx(0.001)


def test_one_failed_of_one_is_adverse_but_not_proven() -> None:
    result = judge_gate(GATE, evidence(failed("a")))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.adverse


def test_the_quick_failures_of_a_healthy_ring_do_not_fail_it_early() -> None:
    """Failures are reported first; judged among the finished alone, seven of seven would be decisive."""
    quick = [failed(f"f{i}") for i in range(7)]
    under_way = [DeviceEvidence(device=f"p{i}", hardware="rpi4") for i in range(173)]
    result = judge_gate(GATE, evidence(*quick, *under_way))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "173 on their way" in result.reason
    assert judge_gate(GATE, evidence(*quick)).verdict is Verdict.FAIL


def test_fewer_than_min_n_never_pass() -> None:
    result = judge_gate(GATE, evidence(*(good(f"d{i}") for i in range(29)), min_n=50))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "min_n 50" in result.reason


def test_one_hardware_that_fails_is_not_hidden_by_a_large_healthy_one() -> None:
    healthy = [good(f"d{i}") for i in range(96)]
    broken = [failed(f"x{i}", hardware="orin") for i in range(4)]
    result = judge_gate(GATE, evidence(*healthy, *broken))
    assert result.effect == pytest.approx(0.04)
    assert result.verdict is Verdict.FAIL
    assert "worst orin" in result.reason


def test_sparse_model_errors_are_seen_device_by_device() -> None:
    """Error counts 0 1 2 1 0 0 against none: a rank test passes them (kayenta 426)."""
    counts = [0, 1, 2, 1, 0, 0]
    devices = [
        good(f"d{i}", candidate=Aggregate(windows=1, requests=100, model_errors=n))
        for i, n in enumerate(counts)
    ]
    result = judge_gate(spec("failures", 0.1, error_share=0.0), evidence(*devices))
    assert result.verdict is Verdict.FAIL
    assert result.effect == 0.5


def test_an_incumbent_that_made_as_many_errors_is_not_held_against_the_release() -> None:
    noisy = Aggregate(windows=1, requests=100, model_errors=5)
    assert judge_gate(GATE, evidence(good("a", candidate=noisy, incumbent=noisy))).effect == 0.0


def test_callers_mistakes_are_not_held_against_the_release() -> None:
    shape = Aggregate(windows=1, requests=100, client_errors=90)
    assert judge_gate(GATE, evidence(good("a", candidate=shape))).effect == 0.0


def test_nothing_finished_is_inconclusive_and_says_so() -> None:
    result = judge_gate(GATE, evidence())
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no device has finished" in result.why
    assert result.to_dict()["interval"] == [None, None]


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.9))
def test_pass_means_the_bound_is_inside_and_fail_that_the_other_is_outside(
    fine: int, broken: int, limit: float
) -> None:
    devices = [good(f"g{i}") for i in range(fine)] + [failed(f"f{i}") for i in range(broken)]
    result = judge_gate(spec("failures", limit), evidence(*devices))
    if result.verdict is Verdict.PASS:
        assert result.upper <= limit
    if result.verdict is Verdict.FAIL:
        assert result.lower >= limit - 1e-9
        assert result.adverse


@given(st.integers(1, 30), st.integers(0, 29), st.floats(0.01, 0.9))
def test_another_failure_never_makes_the_verdict_milder(n: int, k: int, limit: float) -> None:
    k = min(k, n - 1)

    def verdict(bad: int) -> int:
        devices = [failed(f"f{i}") for i in range(bad)] + [good(f"g{i}") for i in range(n - bad)]
        found = judge_gate(spec("failures", limit), evidence(*devices)).verdict
        return [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL].index(found)

    assert verdict(k) <= verdict(k + 1)
