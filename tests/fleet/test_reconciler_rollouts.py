"""Whole rollouts in virtual time: real ingest, reconciler and SQLite; simulated broker and devices."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from edgekit.documents import DeviceStep, Reason
from edgekit.errors import RefusedError
from edgekit_fleet.db.tables import ReleaseRow
from edgekit_fleet.rollout.plan import TIMED_STEPS
from edgekit_fleet.rollout_orders import begin_rollback, promote, resume
from edgekit_fleet.rollouts import get_rollout
from tests.fleet.rollout_sim import GATES, SKEWED, installed, plan, sim
from tests.simulators.sim_device import Behaviour, always
from tests.simulators.sim_fleet import SimFleet

__all__ = ["sim"]

# -- the good way --------------------------------------------------------------------------------


def test_a_good_release_reaches_every_device_ring_by_ring(sim: SimFleet) -> None:
    sim.add_devices(12)
    release = sim.add_release("1.0.0")
    rollout = sim.start(release)
    state = sim.until_state(rollout, "completed", limit=600)
    assert sim.running() == {release: 12}
    assert [ring["name"] for ring in state["rings"]] == ["canary", "half", "rest"]
    opened = [ring["opened"] for ring in state["rings"]]
    assert opened == sorted(opened)
    assert all(ring["state"] in ("passed", "inconclusive", "skipped") for ring in state["rings"])
    hardware = {m["hardware"] for m in state["rings"][0]["members"]}
    assert len(hardware) == 3


def test_an_unproven_ring_is_shown_as_not_proven(sim: SimFleet) -> None:
    sim.add_devices(12)
    state = sim.until_state(sim.start(sim.add_release("1.0.0"), plan()), "completed", limit=200)
    canary = state["rings"][0]
    assert canary["state"] == "inconclusive"
    assert canary["verdict"] == "inconclusive"
    assert "not proven (n=" in canary["reason"]


def test_two_hundred_devices_with_failures_finish_by_themselves(tmp_path: Path) -> None:
    sim = SimFleet(tmp_path)
    sim.add_slot()
    sim.add_devices(200)
    flaky = Reason(code="no_space", text="disk full", retryable=False)
    broken = set(random.Random(3).sample(sorted(sim.devices), 8))
    sim.behave = lambda device, release: (
        Behaviour(fails=(DeviceStep.DOWNLOADING, DeviceStep.FAILED, flaky))
        if device in broken
        else Behaviour()
    )
    state = sim.until_state(sim.start(sim.add_release("1.0.0"), plan()), "completed", limit=300)
    assert state["counts"]["failed"] == 8
    assert state["counts"]["good"] == 192
    assert state["rings"][1]["verdict"] in ("pass", "inconclusive")
    sim.fleet.database.close()


# -- the bad release -----------------------------------------------------------------------------


def test_a_release_that_is_wrong_in_the_field_is_taken_back_by_itself(sim: SimFleet) -> None:
    old = installed(sim)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2, mix=SKEWED)})
    state = sim.until_state(sim.start(bad, plan(early_stop=False)), "rolled_back", limit=300)
    assert sim.running() == {old: 12}
    canary = state["rings"][0]
    verdicts = {gate["gate"]: gate["verdict"] for gate in canary["gates"]}
    assert verdicts["probes"] == "fail"
    assert verdicts["predictions"] == "fail"
    assert state["rings"][1]["state"] == "cancelled"
    assert state["back"]["good"] == len(canary["members"])
    assert all(old not in d.installed[1:] or bad in d.installed for d in sim.devices.values())


def test_enforced_probes_stop_it_before_it_serves(tmp_path: Path) -> None:
    sim = SimFleet(tmp_path)
    sim.add_slot(truth="enforce")
    installed(sim)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    state = sim.until_state(sim.start(bad, plan()), "rolled_back", limit=200)
    assert "probes failed" in state["reason"]
    assert not any(bad in device.installed for device in sim.devices.values())
    sim.fleet.database.close()


def test_overwhelming_evidence_stops_a_ring_before_its_soak_ends(sim: SimFleet) -> None:
    installed(sim)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    began = sim.clock.now()
    sim.until_state(sim.start(bad, plan(soak="1h")), "rolled_back", limit=300)
    assert sim.clock.now() - began < 60


def test_a_first_release_that_fails_leaves_the_slot_empty_again(sim: SimFleet) -> None:
    sim.add_devices(12)
    bad = sim.add_release("1.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    sim.until_state(sim.start(bad, plan()), "rolled_back", limit=200)
    assert sim.running() == {"-": 12}


def test_a_device_that_says_done_and_runs_another_model_is_a_failure(sim: SimFleet) -> None:
    sim.add_devices(3, hardware=("rpi4",))
    release = sim.add_release("1.0.0")
    liar = next(iter(sim.devices.values()))
    honest = liar._activate

    def lie(slot: str, desire: Any, now: float) -> None:
        honest(slot, desire, now)
        state = liar.active[slot]
        liar.active[slot] = type(state).from_dict({**state.to_dict(), "digest": "sha256:" + "f" * 64})

    liar._activate = lie  # type: ignore[method-assign]
    rollout = sim.start(release, {"ring": [{"name": "all", "soak": "5s", "gates": GATES}]})
    state = sim.until(rollout, lambda s: s["state"] != "running", limit=200)
    found = {m["device"]: m for m in state["rings"][0]["members"]}[liar.device]
    assert found["step"] == "failed"
    assert found["reason"]["code"] == "wrong_model"


def test_roll_back_ring_leaves_earlier_rings_alone(sim: SimFleet) -> None:
    old = installed(sim)
    bad = sim.add_release("2.0.0")
    canaries: set[str] = set()
    sim.behave = lambda device, release: (
        Behaviour(accuracy=0.2) if release == bad and device not in canaries else Behaviour()
    )
    gates = [{"type": "failures", "limit": 0.2}, {"type": "probes", "limit": 0.05}]
    rollout = sim.start(bad, plan(on_fail="rollback_ring", gates=gates))
    canaries |= {
        m["device"] for m in sim.until(rollout, lambda s: s["rings"][0]["opened"])["rings"][0]["members"]
    }
    state = sim.until_state(rollout, "rolled_back", limit=300)
    assert state["rings"][1]["state"] == "failed"
    assert sim.running() == {bad: len(canaries), old: 12 - len(canaries)}


def test_a_release_to_go_back_to_that_was_invalidated_is_not_installed_again(sim: SimFleet) -> None:
    old = installed(sim)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    rollout = sim.start(bad, plan())
    sim.advance(2)
    with sim.fleet.database.write() as session:
        session.get_one(ReleaseRow, (old, 1)).state = "invalidated"
    state = sim.until_state(rollout, "rollback_failed", limit=300)
    assert state["rings"][0]["members"][0]["back"]["reason"]["code"] == "invalidated"


def test_a_rollout_that_nobody_could_take_is_held_and_gated_once_devices_come(sim: SimFleet) -> None:
    bad = sim.add_release("1.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    rollout = sim.start(bad, plan())
    state = sim.until_state(rollout, "paused", limit=60)
    assert (state["pause"], state["reason"]) == ("stalled", "no device of any ring can take it")
    sim.add_devices(12)
    sim.advance(30)
    assert sim.running() == {"-": 12}
    with sim.fleet.database.write() as session:
        resume(session, rollout, actor="operator", now=sim.clock.now())
    assert sim.until_state(rollout, "rolled_back", limit=200)["rings"][0]["verdict"] == "fail"
    assert sim.running() == {"-": 12}


def test_orders_to_a_rollout_that_is_back_name_its_state_and_no_remedy_that_is_refused(sim: SimFleet) -> None:
    sim.add_devices(12)
    bad = sim.add_release("1.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    rollout = sim.start(bad, plan())
    sim.until_state(rollout, "rolled_back", limit=200)
    for order in (resume, promote):
        with (
            pytest.raises(RefusedError, match="it is rolled_back") as caught,
            sim.fleet.database.write() as session,
        ):
            order(session, rollout, actor="operator", now=sim.clock.now())
        assert caught.value.code == "bad_state"


# -- timers, offline, late -----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["downloading", "verifying", "preparing", "probing", "trial"])
def test_a_device_stuck_in_a_step_times_out_and_counts_as_a_failure(sim: SimFleet, step: str) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    sim.behave = lambda device, _: Behaviour(stuck=DeviceStep(step)) if device == "d-0000" else Behaviour()
    timers = {"timers": dict.fromkeys(("downloading", "verifying", "preparing", "probing", "trial"), "20s")}
    one_ring = {**timers, "ring": [{"name": "all", "soak": "5s", "gates": GATES}]}
    state = sim.until(sim.start(release, one_ring), lambda s: s["counts"]["timed_out"], limit=100)
    stuck = {m["device"]: m for m in state["rings"][0]["members"]}["d-0000"]
    assert stuck["step"] == "timed_out"
    assert stuck["reason"]["code"] == f"timer_{step}"
    assert state["counts"]["failed"] == 1


def test_a_device_that_never_answers_times_out_as_notified(sim: SimFleet) -> None:
    sim.add_devices(4)
    sim.devices["d-0000"].tick = lambda now: None  # type: ignore[method-assign]
    one_ring = {"timers": {"notified": "15s"}, "ring": [{"name": "all", "soak": "5s", "gates": GATES}]}
    rollout = sim.start(sim.add_release("1.0.0"), one_ring)
    state = sim.until(rollout, lambda s: s["counts"]["timed_out"], limit=100)
    assert {m["device"]: m["reason"] for m in state["rings"][0]["members"]}["d-0000"][
        "code"
    ] == "timer_notified"


def test_a_late_device_is_recorded_and_rolled_back_with_the_rest(sim: SimFleet) -> None:
    old = installed(sim, devices=6)
    new = sim.add_release("2.0.0")
    sim.behave = lambda device, release: (
        Behaviour(stuck=DeviceStep.PREPARING) if (device, release) == ("d-0000", new) else Behaviour()
    )
    one_ring = {"timers": {"preparing": "10s"}, "ring": [{"name": "all", "soak": "60s", "gates": GATES}]}
    rollout = sim.start(new, one_ring)
    sim.until(rollout, lambda s: s["counts"]["timed_out"], limit=100)
    sim.behave = always({})
    state = sim.until(rollout, lambda s: s["counts"]["late"], limit=60)
    sim.advance(5)
    late = {m["device"]: m for m in sim.state(rollout)["rings"][0]["members"]}["d-0000"]
    assert (late["step"], late["late_step"]) == ("timed_out", "committed")
    assert state["counts"]["failed"] == 1
    with sim.fleet.database.write() as session:
        begin_rollback(session, get_rollout(session, rollout), actor="t", reason="r", now=sim.clock.now())
    sim.until_state(rollout, "rolled_back", limit=100)
    assert sim.running() == {old: 6}


def test_offline_devices_do_not_count_and_join_when_they_come(sim: SimFleet) -> None:
    sim.add_devices(6)
    sim.add_devices(3, online=False)
    rollout = sim.start(sim.add_release("1.0.0"), {"ring": [{"name": "all", "soak": "5s", "gates": GATES}]})
    state = sim.until_state(rollout, "completed", limit=100)
    assert (state["counts"]["counted"], state["counts"]["offline"]) == (6, 3)
    for name in ("d-0006", "d-0007", "d-0008"):
        sim.devices[name].connect(sim.clock.now())
    sim.advance(20)
    assert sim.state(rollout)["counts"]["good"] == 9


def test_a_ring_without_any_device_online_does_not_let_the_rest_go(sim: SimFleet) -> None:
    sim.add_devices(6, online=False)
    short = {"timers": dict.fromkeys((*TIMED_STEPS, "whole"), "20s"), **plan()}
    state = sim.until_state(sim.start(sim.add_release("1.0.0"), short), "paused", limit=100)
    assert state["pause"] == "stalled"
    assert state["rings"][1]["state"] == "pending"


def test_devices_enrolled_during_and_after_a_rollout_get_the_release(sim: SimFleet) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    rollout = sim.start(release, plan(gates=[]))
    sim.advance(5)
    sim.add_devices(2)
    state = sim.until_state(rollout, "completed", limit=200)
    assert sum(len(ring["members"]) for ring in state["rings"]) == 8
    sim.add_devices(1)
    sim.advance(20)
    assert sim.running() == {release: 9}


def test_a_retryable_failure_is_tried_again_with_a_new_generation(sim: SimFleet) -> None:
    sim.add_devices(3, hardware=("rpi4",))
    reset = Reason(code="connection", text="connection reset", retryable=True)
    flaky = Behaviour(fails=(DeviceStep.DOWNLOADING, DeviceStep.FAILED, reset))
    sim.behave = lambda device, _: flaky if device == "d-0001" else Behaviour()
    rollout = sim.start(sim.add_release("1.0.0"), {"ring": [{"name": "all", "soak": "5s", "gates": GATES}]})
    sim.until(rollout, lambda s: any(m["retry_at"] for m in s["rings"][0]["members"]), limit=60)
    sim.behave = always({})
    state = sim.until_state(rollout, "completed", limit=100)
    again = {m["device"]: m for m in state["rings"][0]["members"]}["d-0001"]
    assert (again["step"], again["attempt"], again["gen"]) == ("committed", 2, 2)


def test_a_device_enrolled_after_a_release_was_taken_back_gets_the_good_one(sim: SimFleet) -> None:
    old = installed(sim, devices=3)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    sim.until_state(sim.start(bad, plan()), "rolled_back", limit=200)
    sim.add_devices(1)
    sim.advance(20)
    assert sim.running() == {old: 4}
