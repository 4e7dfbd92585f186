"""Orders of operators, refusals, and what is shown, over simulated rollouts."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from edgekit.errors import EdgekitError, RefusedError
from edgekit.topics import rollout_topic
from edgekit_fleet.db.tables import ReleaseRow
from edgekit_fleet.devices import set_pin
from edgekit_fleet.errors import ConflictError, UnknownNameError
from edgekit_fleet.rollout_orders import abort, pause, promote, resume
from edgekit_fleet.rollout_replay import replay_rollout
from edgekit_fleet.rollouts import get_rollout
from tests.fleet.rollout_sim import GATES, SKEWED, installed, plan, sim
from tests.simulators.sim_device import Behaviour, always
from tests.simulators.sim_fleet import SimFleet, sim_manifest

__all__ = ["sim"]

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

    sim.broker.take = counting  # type: ignore[assignment, method-assign]
    for _ in range(200):
        sim.advance(0.25, step=0.25)
    assert len(seen) > 5
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(seen))
    assert json.loads(sim.broker.retained[topic])["state"] == "completed"


def test_every_error_of_an_order_has_a_code_and_a_place(sim: SimFleet) -> None:
    with pytest.raises(EdgekitError) as caught, sim.fleet.database.write() as session:
        pause(session, "r-9999", actor="op", reason="", now=0.0)
    assert caught.value.code == "unknown_rollout"
    assert caught.value.exit_code == 2
