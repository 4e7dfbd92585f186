from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgekit_fleet.rollout.gates import DeviceEvidence, Verdict, judge_gate
from edgekit_fleet.rollout.gates.ranks import fisher_more, rank_sum, signed_rank
from tests.fleet.rollout_makers import control, evidence, good, spec, timed

GATE = spec("latency", 1.25)


def paired(candidate: Sequence[float], incumbent: Sequence[float]) -> list[DeviceEvidence]:
    return [
        good(f"d{i:02d}", candidate=timed(now), incumbent=timed(before))
        for i, (now, before) in enumerate(zip(candidate, incumbent, strict=True))
    ]


def two_arms(candidate: Sequence[float], controls: Sequence[float]) -> list[DeviceEvidence]:
    ours = [good(f"d{i:02d}", candidate=timed(value)) for i, value in enumerate(candidate)]
    return ours + [control(f"c{i:02d}", timed(value)) for i, value in enumerate(controls)]


SEVEN_OF_TEN = [100.0] * 7 + [1.0] * 3


def test_seven_of_ten_devices_a_hundred_times_slower_fail_against_their_own_past() -> None:
    """spinnaker 6278: Mann-Whitney with a tolerance of the estimate passed this."""
    result = judge_gate(GATE, evidence(*paired(SEVEN_OF_TEN, [1.0] * 10)))
    assert result.verdict is Verdict.FAIL
    assert result.lower > 1.25


def test_seven_of_ten_devices_a_hundred_times_slower_fail_against_controls() -> None:
    result = judge_gate(GATE, evidence(*two_arms(SEVEN_OF_TEN, [1.0] * 10)))
    assert result.verdict is Verdict.FAIL
    assert "7 slow" in result.reason


WILD = [1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0]
TIGHT = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7]


def test_a_candidate_that_became_wildly_variable_never_passes() -> None:
    """kayenta 780, case 1: the centres agree, half the devices are ten times slower."""
    result = judge_gate(GATE, evidence(*two_arms(WILD, TIGHT)))
    assert result.verdict is Verdict.FAIL


def test_a_candidate_that_is_as_fast_as_its_own_past_passes() -> None:
    past = [5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
    result = judge_gate(GATE, evidence(*paired(past, past)))
    assert result.verdict is Verdict.PASS
    assert result.effect == pytest.approx(1.0)


def test_two_devices_twice_as_slow_are_adverse_and_not_proven() -> None:
    result = judge_gate(GATE, evidence(*paired([2.0] * 2, [1.0] * 2)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.adverse
    assert "bound none" in result.reason


def test_five_of_five_devices_twice_as_slow_fail_by_the_share_of_slow_devices() -> None:
    result = judge_gate(GATE, evidence(*paired([2.0] * 5, [1.0] * 5)))
    assert result.verdict is Verdict.FAIL
    assert "proven above 20.0 %" in result.reason


def test_thousands_of_requests_do_not_make_two_devices_many() -> None:
    devices = [good(f"d{i}", candidate=timed(1.0, 5000), incumbent=timed(1.0, 5000)) for i in range(2)]
    assert judge_gate(GATE, evidence(*devices)).verdict is Verdict.INCONCLUSIVE


def test_a_slow_board_is_compared_with_its_own_kind_only() -> None:
    boards = {"zero2w": 100.0, "orin": 1.0}
    devices = [
        item
        for name, speed in boards.items()
        for i in range(6)
        for item in (
            good(f"{name}{i}", hardware=name, candidate=timed(speed)),
            control(f"{name}-c{i}", timed(speed), hardware=name),
        )
    ]
    lone = good("x", hardware="lonely", candidate=timed(1e4))
    result = judge_gate(GATE, evidence(*devices, lone))
    assert result.verdict is Verdict.PASS
    assert result.n == 12


def test_too_few_requests_are_no_evidence() -> None:
    result = judge_gate(GATE, evidence(good("a", candidate=timed(1.0, 5))))
    assert result.n == 0
    assert "20 timed requests" in result.reason


def test_a_new_model_without_anything_to_compare_with_is_not_proven() -> None:
    result = judge_gate(GATE, evidence(good("a", candidate=timed(1.0))))
    assert "nothing to compare with" in result.reason


def test_signed_rank_bounds_are_the_exact_ones() -> None:
    values = [0.11, -0.2, 0.35, 0.42, 0.05, 0.61]
    found = signed_rank(values, above=0.0, confidence=0.95)
    walsh = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    assert found.lower == pytest.approx(walsh[2])
    assert found.upper == pytest.approx(walsh[-3])
    exact = stats.wilcoxon(values, alternative="greater", method="exact").pvalue
    assert found.p_above == pytest.approx(exact)


def test_rank_sum_p_values_are_the_exact_ones() -> None:
    x, y = [1.1, 2.2, 3.3, 4.8], [0.5, 1.5, 2.5, 0.1, 3.0]
    found = rank_sum([(x, y)], above=0.0, confidence=0.95)
    exact = stats.mannwhitneyu(x, y, alternative="greater", method="exact").pvalue
    assert found.p_above == pytest.approx(exact)
    assert found.estimate == pytest.approx(np.median(np.subtract.outer(x, y)))


@pytest.mark.parametrize(("k1", "n1", "k2", "n2"), [(7, 10, 0, 10), (3, 5, 2, 9), (0, 4, 3, 4), (4, 4, 4, 4)])
def test_fishers_test_is_the_exact_one(k1: int, n1: int, k2: int, n2: int) -> None:
    exact = stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]], alternative="greater").pvalue
    assert fisher_more(k1, n1, k2, n2) == pytest.approx(exact)


def test_strata_add_up_in_the_rank_sum() -> None:
    one = rank_sum([([3.0, 4.0], [1.0, 2.0])], above=0.0, confidence=0.95)
    two = rank_sum([([3.0, 4.0], [1.0, 2.0])] * 3, above=0.0, confidence=0.95)
    assert one.p_above == pytest.approx(1 / 6)
    assert two.p_above == pytest.approx((1 / 6) ** 3)


def test_large_fleets_take_the_normal_approximation_quickly() -> None:
    draws = np.random.default_rng(1)
    x, y = draws.normal(0.3, 1, 400), draws.normal(0, 1, 1600)
    found = rank_sum([(x.tolist(), y.tolist())], above=0.0, confidence=0.95)
    assert found.lower < 0.3 < found.upper
    assert found.p_above < 1e-3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12), st.floats(-1, 1))
def test_the_bounds_hold_what_the_p_value_says(values: list[float], above: float) -> None:
    found = signed_rank(values, above=above, confidence=0.95)
    assert found.lower <= found.estimate <= found.upper
    if found.p_above <= 0.05:
        assert found.lower >= above
    if found.lower > above:
        assert found.p_above <= 0.05 + 1e-9


def test_coverage_of_the_paired_bound_is_at_least_its_confidence() -> None:
    draws = np.random.default_rng(7)
    held = sum(
        signed_rank(draws.normal(0.2, 1, 8).tolist(), above=0.0, confidence=0.95).upper >= 0.2
        for _ in range(600)
    )
    assert held / 600 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 600)
