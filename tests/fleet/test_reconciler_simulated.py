"""Whole rollouts in virtual time: real ingest, reconciler and SQLite; simulated broker and devices."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.documents import DeviceStep, Reason
from edgekit.errors import EdgekitError, RefusedError
from edgekit.topics import rollout_topic
from edgekit_fleet.audit import verify_chain
from edgekit_fleet.db.rollouts import TelemetryRow
from edgekit_fleet.db.tables import DesiredRow, DeviceRow, ReleaseRow
from edgekit_fleet.devices import set_pin
from edgekit_fleet.errors import ConflictError, UnknownNameError
from edgekit_fleet.rollout_orders import abort, begin_rollback, pause, promote, resume
from edgekit_fleet.rollout_replay import replay_rollout
from edgekit_fleet.rollouts import get_rollout
from tests.simulators.sim_broker import Chaos
from tests.simulators.sim_device import Behaviour, always
from tests.simulators.sim_fleet import SimFleet, sim_manifest

SKEWED = (0.91, *(0.01,) * 9)
GATES = [{"type": "failures", "limit": 0.2}, {"type": "latency", "limit": 1.5}]


def plan(**ring: Any) -> dict[str, Any]:
    """Canary 10 %, rest; short soaks."""
    return {
        "ring": [
            {"name": "canary", "select": {"percent": 10}, "soak": "10s", **ring},
            {"name": "rest", "soak": "10s", **ring},
        ]
    }


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimFleet]:
    fleet = SimFleet(tmp_path)
    fleet.add_slot()
    yield fleet
    if fleet.alive:
        with fleet.fleet.database.read() as session:
            verify_chain(session)
        fleet.fleet.database.close()


def installed(sim: SimFleet, version: str = "1.0.0", devices: int = 12) -> str:
    """A fleet on which `version` has been rolled out."""
    sim.add_devices(devices)
    release = sim.add_release(version)
    sim.until_state(sim.start(release, plan(gates=[])), "completed", limit=200)
    return release


def steps(state: dict[str, Any]) -> dict[str, str]:
    return {m["device"]: m["step"] for ring in state["rings"] for m in ring["members"]}


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


# -- timers, offline, late -----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["downloading", "verifying", "preparing", "probing", "trial"])
def test_a_device_stuck_in_a_step_times_out_and_counts_as_a_failure(sim: SimFleet, step: str) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    sim.behave = lambda device, _: Behaviour(stuck=DeviceStep(step)) if device == "d-0000" else Behaviour()
    timers = {
        "timers": {name: "20s" for name in ("downloading", "verifying", "preparing", "probing", "trial")}
    }
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
    short = {"timers": {step: "20s" for step in ("notified", "accepted", "downloading", "verifying",
             "preparing", "probing", "trial", "whole")}, **plan()}  # fmt: skip
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


# -- documents that should not be there ----------------------------------------------------------


def test_duplicates_and_disorder_change_nothing(tmp_path: Path) -> None:
    outcomes = []
    for chaos in (None, Chaos(random=random.Random(9))):
        sim = SimFleet(tmp_path / str(chaos is None))
        sim.add_slot()
        sim.add_devices(15)
        sim.broker.chaos = chaos
        release = sim.add_release("1.0.0")
        state = sim.until_state(sim.start(release, plan()), "completed", limit=300)
        outcomes.append((sim.running(), state["counts"]["good"], state["counts"]["failed"]))
        if chaos is not None:
            assert sim.ingest.dropped.counts["stale"] > 0
            assert sim.ingest.dropped.counts["duplicate"] > 0
        sim.fleet.database.close()
    assert outcomes[0] == outcomes[1]


def test_foreign_unknown_and_malformed_documents_are_counted_and_leave_no_trace(sim: SimFleet) -> None:
    sim.add_devices(1)
    sim.advance(3)
    stranger = sim.broker.transport("stranger")
    stranger.start((), lambda *_: None)
    good = sim.broker.retained["ek/1/acme/d/d-0000/reported"]
    stranger.publish("ek/1/acme/d/d-0000/reported", b"{nonsense")
    stranger.publish("ek/1/acme/d/ghost/reported", good)
    sim._on_message("ek/1/other/d/d-0000/reported", good, False)
    sim.advance(1)
    counts = sim.ingest.dropped.counts
    assert (counts["malformed"], counts["unknown_device"], counts["foreign"]) == (1, 1, 1)
    with sim.fleet.database.read() as session:
        assert session.get(DeviceRow, "ghost") is None


# -- crashes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 4, 6, 9, 13, 19])
def test_the_server_killed_at_any_moment_of_a_rollout_goes_on(sim: SimFleet, after: int) -> None:
    old = installed(sim, devices=6)
    new = sim.add_release("2.0.0")
    sim.behave = always({new: Behaviour(accuracy=0.2)})
    rollout = sim.start(new, plan(early_stop=False))
    sim.advance(after)
    sim.kill_service()
    sim.advance(8)
    sim.start_service()
    sim.until_state(rollout, "rolled_back", limit=300)
    assert sim.running() == {old: 6}


def test_no_telemetry_window_is_lost_when_the_server_dies_again_and_again(sim: SimFleet) -> None:
    sim.add_devices(6)
    sim.start(sim.add_release("1.0.0"), plan(gates=[]))
    for life in range(6):
        sim.advance(7 + life)
        sim.broker.pump()
        sim.kill_service()
        sim.advance(3)
        sim.start_service()
    sim.advance(5)
    for device in sim.devices.values():
        device.lose(sim.clock.now())
        device.connect(sim.clock.now())
    sim.advance(3)
    with sim.fleet.database.read() as session:
        for name, device in sim.devices.items():
            rows = session.query(TelemetryRow.seq).filter(TelemetryRow.device == name).all()
            stored = sorted(seq for (seq,) in rows)
            assert stored == sorted(set(stored)), "stored twice"
            missing = set(device.sent) - set(stored) - set(device.outbox)
            assert not missing
            assert set(device.sent[:-2]) <= set(stored)


def test_nothing_is_acknowledged_that_was_not_committed(sim: SimFleet) -> None:
    sim.add_devices(2)
    sim.until_state(sim.start(sim.add_release("1.0.0"), plan(gates=[])), "completed", limit=100)
    device = sim.devices["d-0000"]
    sim.broker.pump()
    before = dict(device.outbox)
    device.window_at = 0.0
    device.tick(sim.clock.now())
    sim.broker.pump()
    sim.kill_service()  # delivered, not committed
    sim.broker.pump()
    assert set(device.outbox) > set(before)


def test_a_broker_that_lost_everything_gets_all_desired_documents_again(sim: SimFleet) -> None:
    installed(sim, devices=4)
    sim.broker.set_up(False, lose_retained=True)
    sim.advance(3)
    sim.broker.set_up(True)
    sim.advance(3)
    wanted = [topic for topic in sim.broker.retained if topic.endswith("/desired")]
    assert len(wanted) == 4


def test_a_broker_that_is_down_delays_and_loses_nothing(sim: SimFleet) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    rollout = sim.start(release, plan(gates=[]))
    sim.broker.set_up(False)
    sim.advance(10)
    sim.broker.set_up(True)
    for device in sim.devices.values():
        device.connect(sim.clock.now())
    sim.until_state(rollout, "completed", limit=200)
    assert sim.running() == {release: 6}


def test_two_servers_never_move_the_same_rollout(sim: SimFleet) -> None:
    from edgekit_fleet.service.reconciler import Reconciler

    sim.add_devices(3)
    sim.advance(1)
    second = Reconciler(sim.fleet, sim.events)
    assert second.tick() is False
    sim.clock.advance(30)
    assert second.tick() is True
    assert sim.reconciler.tick() is False


def test_generations_only_grow(sim: SimFleet) -> None:
    installed(sim, devices=3)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    sim.until_state(sim.start(bad, {"ring": [{"name": "all", "soak": "5s"}]}), "rolled_back", limit=100)
    with sim.fleet.database.read() as session:
        assert [row.gen for row in session.query(DesiredRow)] == [3, 3, 3]


# -- orders --------------------------------------------------------------------------------------


def test_pause_holds_and_resume_goes_on(sim: SimFleet) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    rollout = sim.start(release, plan(gates=[]))
    sim.advance(2)
    with sim.fleet.database.write() as session:
        pause(session, rollout, actor="op", reason="lunch", now=sim.clock.now())
    sim.advance(60)
    assert sim.state(rollout)["rings"][1]["state"] == "pending"
    with sim.fleet.database.write() as session:
        resume(session, rollout, actor="op", now=sim.clock.now())
    sim.until_state(rollout, "completed", limit=100)


def test_a_ring_that_wants_approval_waits_until_it_is_promoted(sim: SimFleet) -> None:
    sim.add_devices(6)
    two = plan(gates=[])
    two["ring"][1]["approval"] = True
    rollout = sim.start(sim.add_release("1.0.0"), two)
    state = sim.until_state(rollout, "paused", limit=100)
    assert (state["pause"], state["rings"][1]["state"]) == ("approval", "awaiting_approval")
    with pytest.raises(RefusedError, match="wants an approval"), sim.fleet.database.write() as session:
        resume(session, rollout, actor="op", now=sim.clock.now())
    with sim.fleet.database.write() as session:
        promote(session, rollout, actor="op", now=sim.clock.now())
    sim.until_state(rollout, "completed", limit=100)


def test_an_inconclusive_ring_that_pauses_may_be_promoted_and_is_never_called_passed(sim: SimFleet) -> None:
    sim.add_devices(6)
    rollout = sim.start(sim.add_release("1.0.0"), plan(on_inconclusive="pause", gates=GATES))
    state = sim.until_state(rollout, "paused", limit=100)
    assert state["pause"] == "gate"
    with sim.fleet.database.write() as session:
        promote(session, rollout, actor="op", now=sim.clock.now())
    canary = sim.state(rollout)["rings"][0]
    assert (canary["state"], canary["verdict"]) == ("inconclusive", "inconclusive")
    assert canary["reason"].startswith("promoted by op")


def test_a_failed_ring_cannot_be_promoted(sim: SimFleet) -> None:
    installed(sim)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    rollout = sim.start(bad, plan(on_fail="pause"))
    sim.until_state(rollout, "paused", limit=100)
    with pytest.raises(RefusedError, match="failed"), sim.fleet.database.write() as session:
        promote(session, rollout, actor="op", now=sim.clock.now())


def test_abort_takes_back_what_offline_devices_have_not_begun(sim: SimFleet) -> None:
    old = installed(sim, devices=3)
    sim.devices["d-0001"].lose(sim.clock.now())
    sim.advance(1)
    new = sim.add_release("2.0.0")
    rollout = sim.start(new, {"ring": [{"name": "all", "soak": "1h", "gates": []}]})
    sim.advance(12)
    with sim.fleet.database.write() as session:
        abort(session, get_rollout(session, rollout), actor="op", reason="enough", now=sim.clock.now())
    sim.advance(3)
    sim.devices["d-0001"].connect(sim.clock.now())
    sim.advance(15)
    assert sim.running() == {new: 2, old: 1}
    assert sim.state(rollout)["state"] == "aborted"


def test_a_pinned_device_is_left_alone(sim: SimFleet) -> None:
    old = installed(sim, devices=3)
    with sim.fleet.database.write() as session:
        set_pin(session, "d-0002", "digits", old)
    new = sim.add_release("2.0.0")
    state = sim.until_state(sim.start(new, plan(gates=[])), "completed", limit=100)
    assert sim.running() == {new: 2, old: 1}
    assert "pinned" in state["rings"][0]["excluded"]["d-0002"]


def test_an_unsigned_an_invalidated_and_an_unknown_release_are_refused(sim: SimFleet) -> None:
    sim.add_devices(1)
    for version, state, code in (("3.0.0", "added", "not_signed"), ("4.0.0", "invalidated", "invalidated")):
        release = sim.add_release(version, state=state)
        with pytest.raises(RefusedError) as caught:
            sim.start(release)
        assert caught.value.code == code
    with pytest.raises(UnknownNameError):
        sim.start("digits@9.9.9")


def test_a_release_invalidated_in_the_middle_is_given_to_nobody_further(sim: SimFleet) -> None:
    sim.add_devices(12)
    release = sim.add_release("1.0.0")
    rollout = sim.start(release, plan(gates=[]))
    sim.advance(4)
    with sim.fleet.database.write() as session:
        session.get_one(ReleaseRow, (release, 1)).state = "invalidated"
    state = sim.until_state(rollout, "paused", limit=30)
    assert state["pause"] == "invalidated"
    sim.advance(60)
    assert sim.state(rollout)["rings"][1]["state"] == "pending"


def test_a_second_rollout_of_a_slot_has_to_wait(sim: SimFleet) -> None:
    sim.add_devices(3)
    sim.start(sim.add_release("1.0.0"), plan())
    with pytest.raises(ConflictError) as caught:
        sim.start(sim.add_release("2.0.0"), plan())
    assert caught.value.exit_code == 3


def test_hardware_without_a_variant_is_left_out_with_the_reason(sim: SimFleet) -> None:
    sim.add_devices(6)
    manifest = sim_manifest("1.0.0", hardware=("rpi4",))
    rollout = sim.start(sim.add_release("1.0.0", manifest=manifest), plan(gates=[]))
    state = sim.until_state(rollout, "completed", limit=100)
    assert state["counts"]["members"] == 2
    assert "made for rpi4" in state["rings"][0]["excluded"]["d-0001"]


def test_never_two_cameras_of_a_shop_change_at_once(sim: SimFleet) -> None:
    sim.add_devices(10)
    budget = {"max_unavailable": 1, "group_by": "shop"}
    rollout = sim.start(
        sim.add_release("1.0.0"), {"ring": [{"name": "all", "soak": "1s", "gates": [], "disruption": budget}]}
    )
    most = 0
    for _ in range(120):
        sim.advance(1)
        state = sim.state(rollout)
        if state["state"] == "completed":
            break
        changing = [
            int(m["device"][2:]) // 5
            for m in state["rings"][0]["members"]
            if m["step"] not in ("targeted", "committed")
        ]
        most = max(most, *(changing.count(shop) for shop in set(changing)), 0)
    assert state["state"] == "completed"
    assert most == 1


# -- what is shown -------------------------------------------------------------------------------


def test_replay_gives_the_same_verdicts_from_stored_windows(sim: SimFleet) -> None:
    installed(sim)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2, mix=SKEWED, latency_ms=9.0)})
    rollout = sim.start(bad, plan(early_stop=False))
    sim.until_state(rollout, "rolled_back", limit=300)
    sim.advance(60)
    with sim.fleet.database.read() as session:
        replays = replay_rollout(session, get_rollout(session, rollout))
    assert replays
    assert all(item["same"] for item in replays)


def test_the_feed_is_retained_and_at_most_once_a_second(sim: SimFleet) -> None:
    sim.add_devices(6)
    rollout = sim.start(sim.add_release("1.0.0"), plan(gates=[]))
    topic = rollout_topic("acme", rollout)
    seen: list[float] = []
    take = sim.broker.take

    def counting(name: str, payload: bytes, retain: bool) -> None:
        if name == topic:
            assert retain
            seen.append(sim.clock.now())
        take(name, payload, retain)

    sim.broker.take = counting  # type: ignore[method-assign]
    for _ in range(200):
        sim.advance(0.25, step=0.25)
    assert len(seen) > 5
    assert all(later - earlier >= 1.0 for earlier, later in zip(seen, seen[1:], strict=False))
    assert json.loads(sim.broker.retained[topic])["state"] == "completed"


def test_every_error_of_an_order_has_a_code_and_a_place(sim: SimFleet) -> None:
    with pytest.raises(EdgekitError) as caught, sim.fleet.database.write() as session:
        pause(session, "r-9999", actor="op", reason="", now=0.0)
    assert caught.value.code == "unknown_rollout"
    assert caught.value.exit_code == 2
