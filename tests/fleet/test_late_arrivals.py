"""Devices that come after a rollout has completed: judged like a ring, never a reason to undo the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit_fleet.audit import verify_chain
from edgekit_fleet.db.tables import AuditRow
from tests.fleet.rollout_sim import GATES, installed, plan, sim
from tests.simulators.sim_device import Behaviour
from tests.simulators.sim_fleet import SimFleet

__all__ = ["sim"]

PROBES = [*GATES, {"type": "probes", "limit": 0.05}]


def completed(sim: SimFleet, gates: list[dict[str, Any]], *, devices: int = 6, **ring: Any) -> str:
    sim.add_devices(devices)
    rollout = sim.start(sim.add_release("1.0.0"), plan(gates=gates, **ring))
    sim.until_state(rollout, "completed", limit=200)
    return rollout


def late(sim: SimFleet, rollout: str) -> dict[str, Any]:
    found: dict[str, Any] = next(ring for ring in sim.state(rollout)["rings"] if ring["name"] == "late")
    return found


def bad_latecomers(sim: SimFleet) -> None:
    """From now on whoever is new computes wrongly."""
    known = set(sim.devices)
    sim.behave = lambda device, _: Behaviour() if device in known else Behaviour(accuracy=0.2)


def test_late_arrivals_soak_and_are_judged_by_the_last_rings_gates(sim: SimFleet) -> None:
    rollout = completed(sim, PROBES)
    sim.add_devices(3)
    sim.until(rollout, lambda s: s["rings"][-1]["state"] == "soaking", limit=60)
    sim.advance(20)
    ring = late(sim, rollout)
    assert (ring["counts"]["good"], ring["look"]) == (3, "final")
    assert ring["state"] in ("passed", "inconclusive")
    assert {gate["gate"] for gate in ring["gates"]} == {"failures", "latency", "probes"}
    assert sim.state(rollout)["state"] == "completed"


def test_a_further_arrival_opens_the_late_ring_again(sim: SimFleet) -> None:
    rollout = completed(sim, PROBES)
    sim.add_devices(1)
    sim.advance(40)
    first = late(sim, rollout)
    assert first["closed"]
    sim.add_devices(1)
    sim.until(rollout, lambda s: s["rings"][-1]["state"] == "deploying", limit=60)
    sim.advance(40)
    again = late(sim, rollout)
    assert again["closed"] > first["closed"]
    assert again["counts"]["good"] == 2


def test_late_arrivals_that_fail_go_back_alone_and_nobody_further_gets_it(sim: SimFleet) -> None:
    rollout = completed(sim, PROBES)
    bad_latecomers(sim)
    sim.add_devices(2)
    state = sim.until(rollout, lambda s: s["rings"][-1]["state"] == "failed", limit=60)
    assert state["state"] == "completed"
    sim.advance(20)
    assert sim.running() == {"digits@1.0.0": 6, "-": 2}, "back to what they had: nothing"
    assert "late arrivals failed" in sim.state(rollout)["reason"]
    sim.add_devices(1)
    sim.advance(20)
    assert sim.running() == {"digits@1.0.0": 6, "-": 3}
    with sim.fleet.database.read() as session:
        verify_chain(session)
        assert session.query(AuditRow).filter(AuditRow.verb == "rollout.late_failed").count() == 1


def test_a_plan_that_pauses_leaves_failed_latecomers_what_they_have(sim: SimFleet) -> None:
    rollout = completed(sim, PROBES, on_fail="pause")
    bad_latecomers(sim)
    sim.add_devices(1)
    sim.until(rollout, lambda s: s["rings"][-1]["state"] == "failed", limit=60)
    sim.add_devices(1)
    sim.advance(20)
    assert sim.running() == {"digits@1.0.0": 7, "-": 1}


def test_a_late_device_that_misses_enforced_probes_reverts_by_itself_and_is_counted(tmp_path: Path) -> None:
    strict = SimFleet(tmp_path)
    strict.add_slot(truth="enforce")
    rollout = completed(strict, [], devices=3)
    bad_latecomers(strict)
    strict.add_devices(1)
    state = strict.until(rollout, lambda s: s["counts"]["failed"] == 1, limit=60)
    [member] = state["rings"][-1]["members"]
    assert (member["step"], member["counted"]) == ("reverted", True)
    assert strict.running() == {"digits@1.0.0": 3, "-": 1}
    strict.fleet.database.close()


def test_a_newer_rollout_leaves_the_old_late_ring_alone(sim: SimFleet) -> None:
    installed(sim, devices=3)
    newer = sim.add_release("2.0.0")
    sim.until_state(sim.start(newer, plan(gates=[])), "completed", limit=200)
    sim.add_devices(1)
    sim.advance(30)
    assert sim.running() == {newer: 4}
