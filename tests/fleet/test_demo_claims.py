"""The demo's claims: none is met by accident, by silence or by half."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import DataError, UnavailableError
from edgekit_fleet.demo.calls import kinds
from edgekit_fleet.demo.claims import (
    Act,
    all_met,
    good_release,
    nothing_left,
    stopped_after_serving,
    stopped_before_serving,
)
from edgekit_fleet.demo.plans import first_plan, second_plan
from edgekit_fleet.demo.run import Result
from edgekit_fleet.demo.traffic import Answer, Samples, tally
from edgekit_fleet.rollout.plan import read_plan

V1, V2 = "digits@1.0.0", "digits@2.0.0"
DEVICES = [f"dev-{number:02d}" for number in range(1, 13)]


def answers(device: str, release: str, n: int, *, right: bool = True, status: int = 200) -> list[Answer]:
    return [Answer(float(i), device, status, release, right, 3, 1.5) for i in range(n)]


def act(*log: Answer, **changes: object) -> Act:
    base = Act(
        title="t",
        rollout="r-2",
        release=V2,
        state="rolled_back",
        reason="probes failed",
        exit_code=3,
        seconds=20.0,
        verdicts={"failures": "pass", "probes": "fail", "predictions": "fail"},
        why={"probes": "failed (8 of 60 right)", "predictions": "failed (PSI 4)"},
        serving=dict.fromkeys(DEVICES, V1),
        traffic=tally(log),
        rings=({"name": "canary", "state": "failed", "devices": ["dev-01", "dev-05"]},),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # the tests' own keywords


GOOD_TRAFFIC = [answer for device in DEVICES for answer in answers(device, V1, 20)]
WRONG_ON_CANARIES = [a for device in ("dev-01", "dev-05") for a in answers(device, V2, 20, right=False)]


def met(claims: object) -> list[bool]:
    assert isinstance(claims, list)
    return [claim.met for claim in claims]


def test_a_release_that_reached_everybody_and_is_right() -> None:
    good = act(*GOOD_TRAFFIC, release=V1, state="completed", exit_code=0)
    assert all_met(good_release(good, 12))
    one_behind = replace(good, serving={**good.serving, "dev-03": ""})
    assert met(good_release(one_behind, 12)) == [False, True, True]


def test_wrong_answers_and_no_answers_are_not_right() -> None:
    wrong = act(*answers("dev-01", V1, 20, right=False), release=V1, state="completed", exit_code=0)
    assert met(good_release(wrong, 12))[1] is False
    silent = act(release=V1, state="completed", exit_code=0)
    assert met(good_release(silent, 12)) == [True, False, False]


def test_one_answer_of_v2_breaks_the_enforce_claim() -> None:
    assert all_met(stopped_before_serving(act(*GOOD_TRAFFIC), V1, 12))
    served = act(*GOOD_TRAFFIC, *answers("dev-01", V2, 1))
    assert met(stopped_before_serving(served, V1, 12)) == [False, True, True, True]


def test_no_traffic_proves_nothing() -> None:
    assert met(stopped_before_serving(act(), V1, 12))[0] is False


def test_a_dropped_request_is_told_with_its_error() -> None:
    lost = act(*GOOD_TRAFFIC, Answer(9.0, "dev-02", 0, "", False, 1, 3.0, "ConnectionResetError: reset"))
    claim = stopped_before_serving(lost, V1, 12)[-1]
    assert not claim.met
    assert "1 dropped" in claim.detail
    assert "dev-02: 0 ConnectionResetError: reset" in claim.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"verdicts": {"probes": "pass", "predictions": "fail"}},
        {"verdicts": {"probes": "inconclusive", "predictions": "fail"}},
        {"verdicts": {}},
        {"state": "paused"},
        {"exit_code": 0},
    ],
)
def test_a_rollout_that_something_else_stopped_does_not_count_for_the_gate(
    changes: dict[str, object],
) -> None:
    assert met(stopped_before_serving(act(*GOOD_TRAFFIC, **changes), V1, 12))[1] is False


def test_observe_needs_v2_on_every_canary_and_nowhere_else_and_wrong() -> None:
    fine = act(*GOOD_TRAFFIC, *WRONG_ON_CANARIES)
    assert all_met(stopped_after_serving(fine, V1, 12))
    leaked = act(*GOOD_TRAFFIC, *WRONG_ON_CANARIES, *answers("dev-09", V2, 1, right=False))
    assert met(stopped_after_serving(leaked, V1, 12))[0] is False
    only_one = act(*GOOD_TRAFFIC, *answers("dev-01", V2, 20, right=False))
    assert met(stopped_after_serving(only_one, V1, 12))[0] is False
    right = act(*GOOD_TRAFFIC, *(a._replace(right=True) for a in WRONG_ON_CANARIES))
    assert met(stopped_after_serving(right, V1, 12))[1] is False
    half = act(*GOOD_TRAFFIC, *WRONG_ON_CANARIES, verdicts={"probes": "fail", "predictions": "inconclusive"})
    assert met(stopped_after_serving(half, V1, 12))[2] is False


def test_a_device_that_did_not_come_back_is_seen() -> None:
    stuck = act(*GOOD_TRAFFIC, *WRONG_ON_CANARIES, serving={**dict.fromkeys(DEVICES, V1), "dev-01": V2})
    claim = stopped_after_serving(stuck, V1, 12)[3]
    assert (claim.met, claim.detail) == (False, "11 of 12")


def test_left_over_processes_are_named() -> None:
    assert nothing_left([]).met
    assert "4711" in nothing_left([4711]).detail


def test_a_demo_that_claimed_nothing_has_not_succeeded() -> None:
    assert not Result().met


def test_releases_are_counted_apart() -> None:
    counted = tally([*answers("dev-01", V1, 3), *answers("dev-02", V2, 2, right=False)])
    assert dict(counted.per_release) == {V1: 3, V2: 2}
    assert (counted.accuracy(V1), counted.accuracy(V2), counted.accuracy("x@1")) == (1.0, 0.0, None)
    assert dict(counted.served_by) == {V1: ("dev-01",), V2: ("dev-02",)}


@pytest.mark.parametrize("text", [first_plan(4.0), second_plan(10.0)])
def test_the_plans_are_plans(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    plan = read_plan(path, truth_probes=True)
    assert [ring.name for ring in plan.rings] == ["canary", "half", "rest"]
    assert {gate.type for gate in plan.rings[0].gates} == {"failures", "latency", "probes", "predictions"}


def test_samples_say_what_is_wrong_with_their_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "field.npz", other=np.zeros(3))
    with pytest.raises(DataError, match=r"field\.npz.*'image' and 'labels'"):
        Samples.load(tmp_path / "field.npz", input_name="image", output="probabilities")


def test_no_architecture_is_pretended() -> None:
    assert {kind.profile for kind in kinds("x86_64")} == {"x86-64-litert", "x86-64-onnx"}
    assert {kind.profile for kind in kinds("arm64")} == {"arm64-litert", "arm64-onnx"}
    with pytest.raises(UnavailableError, match="riscv64"):
        kinds("riscv64")
