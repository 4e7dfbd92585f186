from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_fleet.rollout.gates import Verdict, judge_gate
from tests.fleet.rollout_makers import evidence, good, probe, spec

GATE = spec("probes", 0.05)
RIGHT = "1" * 100


def test_one_device_is_decisive_when_the_drop_is_proven() -> None:
    result = judge_gate(GATE, evidence(good("a", truth=probe("1" * 70 + "0" * 30, RIGHT))))
    assert result.verdict is Verdict.FAIL
    assert result.effect == pytest.approx(0.3)
    assert result.lower > 0.05


def test_one_device_is_enough_to_pass() -> None:
    result = judge_gate(GATE, evidence(good("a", truth=probe(RIGHT, RIGHT))))
    assert result.verdict is Verdict.PASS
    assert result.upper == pytest.approx(1 - 0.05**0.01)


def test_below_the_slots_minimum_fails_without_an_incumbent() -> None:
    result = judge_gate(GATE, evidence(good("a", truth=probe("1" * 80 + "0" * 20)), min_accuracy=0.9))
    assert result.verdict is Verdict.FAIL
    assert "below 90.0 %" in result.reason


def test_below_the_minimum_fails_though_the_incumbent_was_as_bad() -> None:
    bad = "1" * 80 + "0" * 20
    result = judge_gate(GATE, evidence(good("a", truth=probe(bad, bad)), min_accuracy=0.9))
    assert result.verdict is Verdict.FAIL


def test_few_items_prove_nothing() -> None:
    result = judge_gate(GATE, evidence(good("a", truth=probe("1" * 10, "1" * 10))))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "bound 25.9 %" in result.reason


def test_items_of_many_equal_devices_are_not_pooled() -> None:
    """Twenty devices with the same ten items know no more than one device."""
    devices = [good(f"d{i}", truth=probe("1" * 10, "1" * 10)) for i in range(20)]
    result = judge_gate(GATE, evidence(*devices))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.n == 10


def test_one_bad_variant_among_good_ones_fails() -> None:
    fine = [good(f"d{i}", truth=probe(RIGHT, RIGHT)) for i in range(9)]
    broken = good("x", hardware="orin", truth=probe("1" * 75 + "0" * 25, RIGHT))
    result = judge_gate(GATE, evidence(*fine, broken))
    assert result.verdict is Verdict.FAIL


def test_a_single_broken_board_may_be_tolerated() -> None:
    fine = [good(f"d{i}", truth=probe(RIGHT)) for i in range(19)]
    broken = good("x", truth=probe("1" * 88 + "0" * 12))
    strict = judge_gate(GATE, evidence(*fine, broken, min_accuracy=0.9))
    lenient = judge_gate(spec("probes", 0.05, tolerate=0.1), evidence(*fine, broken, min_accuracy=0.9))
    assert strict.verdict is Verdict.FAIL
    assert lenient.verdict is Verdict.INCONCLUSIVE


def test_the_devices_own_limit_is_taken_too() -> None:
    report = probe("1" * 80 + "0" * 20, floor=0.95)
    assert judge_gate(GATE, evidence(good("a", truth=report))).verdict is Verdict.FAIL


def test_no_report_is_no_evidence() -> None:
    result = judge_gate(GATE, evidence(good("a")))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no device has reported" in result.reason


@given(st.lists(st.sampled_from(["11", "10", "01", "00"]), min_size=1, max_size=200))
def test_an_improvement_never_fails(pairs: list[str]) -> None:
    baseline, right = "".join(p[0] for p in pairs), "".join(p[1] for p in pairs)
    result = judge_gate(GATE, evidence(good("a", truth=probe(right, baseline))))
    lost = sum(p == "10" for p in pairs)
    gained = sum(p == "01" for p in pairs)
    if gained >= lost:
        assert result.verdict is not Verdict.FAIL
    if result.verdict is Verdict.FAIL:
        assert (lost - gained) / len(pairs) > 0.05
