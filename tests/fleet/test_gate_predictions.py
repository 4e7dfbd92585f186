from __future__ import annotations

import numpy as np
import pytest

from edgekit.package import Distribution
from edgekit_fleet.rollout.gates import DeviceEvidence, Evidence, Verdict, judge_gate
from tests.fleet.rollout_makers import answered, control, evidence, good, spec

GATE = spec("predictions", 0.25)
UNIFORM = [0.1] * 10
SHIFTED = [0.55] + [0.05] * 9


def devices(
    canaries: int,
    controls: int,
    *,
    moved: bool,
    seed: int = 3,
    requests: int = 200,
    hardware: str = "rpi4",
    scatter: float = 200.0,
) -> list[DeviceEvidence]:
    """Devices whose class mix scatters as a Dirichlet around the fleet's."""
    draws = np.random.default_rng(seed)

    def counts(mix: list[float]) -> list[int]:
        own = draws.dirichlet(np.asarray(mix) * scatter)
        return [int(n) for n in draws.multinomial(requests, own)]

    ours = [
        good(f"{hardware}-d{i}", hardware=hardware, candidate=answered(counts(SHIFTED if moved else UNIFORM)))
        for i in range(canaries)
    ]
    return ours + [
        control(f"{hardware}-c{i}", answered(counts(UNIFORM)), hardware=hardware) for i in range(controls)
    ]


def test_a_collapse_to_one_class_fails_with_three_canaries() -> None:
    result = judge_gate(GATE, evidence(*devices(3, 9, moved=True)))
    assert result.verdict is Verdict.FAIL
    assert result.lower > 0.25


def test_one_canary_in_each_of_three_hardwares_is_decisive_when_the_answers_moved() -> None:
    fleet = [d for i, name in enumerate("abc") for d in devices(1, 3, moved=True, seed=i, hardware=name)]
    assert judge_gate(GATE, evidence(*fleet)).verdict is Verdict.FAIL


def test_one_canary_in_each_of_three_hardwares_passes_when_nothing_moved() -> None:
    fleet = [d for i, name in enumerate("abc") for d in devices(1, 3, moved=False, seed=i, hardware=name)]
    assert judge_gate(GATE, evidence(*fleet)).verdict is Verdict.PASS


def test_below_the_minimum_of_devices_it_is_evidence_not_pass() -> None:
    result = judge_gate(GATE, evidence(*devices(2, 9, moved=False)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "fewer than 3 devices" in result.reason


def test_a_million_frames_of_two_devices_are_two_devices() -> None:
    result = judge_gate(GATE, evidence(*devices(1, 1, moved=False, requests=1_000_000)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.n == 1


def test_noise_of_few_frames_alone_is_no_effect() -> None:
    """Thirty frames over ten classes have an expected PSI of about 0.3 with nothing wrong."""
    results = [
        judge_gate(GATE, evidence(*devices(3, 9, moved=False, requests=30, seed=s))) for s in range(40)
    ]
    assert not any(r.verdict is Verdict.FAIL for r in results)
    assert np.mean([r.effect for r in results]) < 0.1


def test_false_alarms_stay_rare_where_sites_differ_much() -> None:
    wrong = sum(
        judge_gate(
            spec("predictions", 0.02), evidence(*devices(3, 9, moved=False, seed=s, scatter=30.0))
        ).verdict
        is Verdict.FAIL
        for s in range(100)
    )
    assert wrong <= 12


def test_a_change_of_light_that_both_arms_see_is_not_blamed_on_the_release() -> None:
    draws = np.random.default_rng(5)

    def dusk() -> list[int]:
        return [int(n) for n in draws.multinomial(300, draws.dirichlet(np.asarray(SHIFTED) * 300))]

    fleet = [good(f"d{i}", candidate=answered(dusk()), incumbent=answered([30] * 10)) for i in range(4)]
    fleet += [control(f"c{i}", answered(dusk())) for i in range(6)]
    assert judge_gate(GATE, evidence(*fleet)).verdict is Verdict.PASS


def test_without_control_and_incumbent_the_packages_reference_is_compared_with() -> None:
    fleet = devices(5, 0, moved=True)
    reference = {"outputs": {"digit": Distribution(kind="classes", counts=(100,) * 10)}}
    result = judge_gate(GATE, Evidence(devices=tuple(fleet), reference=reference))
    assert result.verdict is Verdict.FAIL
    assert "reference" in result.reason


def test_one_device_against_a_reference_has_no_bound() -> None:
    reference = {"outputs": {"digit": Distribution(kind="classes", counts=(100,) * 10)}}
    result = judge_gate(GATE, Evidence(devices=tuple(devices(1, 0, moved=False)), reference=reference))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert not result.adverse
    assert "bound none" in result.reason


def test_bins_of_another_size_are_left_out() -> None:
    odd = control("odd", answered([50, 50]))
    result = judge_gate(GATE, evidence(*devices(3, 3, moved=False), odd))
    assert result.detail["others"] == 3


def test_the_same_evidence_gives_the_same_figures() -> None:
    fleet = devices(3, 9, moved=True)
    first, second = (judge_gate(GATE, evidence(*fleet)).to_dict() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("metric", ["psi", "jsd"])
def test_both_metrics_see_the_shift(metric: str) -> None:
    limit = {"psi": 0.25, "jsd": 0.05}[metric]
    result = judge_gate(spec("predictions", limit, metric=metric), evidence(*devices(4, 8, moved=True)))
    assert result.verdict is Verdict.FAIL
