"""Rollouts in virtual time under duplicates, disorder, strangers, crashes and a broker that fails."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgekit_fleet.db.rollouts import TelemetryRow
from edgekit_fleet.db.tables import DesiredRow, DeviceRow
from edgekit_fleet.service.reconciler import Reconciler
from tests.fleet.rollout_sim import installed, plan, sim
from tests.simulators.sim_broker import Chaos
from tests.simulators.sim_device import Behaviour, always
from tests.simulators.sim_fleet import SimFleet

__all__ = ["sim"]

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
