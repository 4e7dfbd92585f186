"""What the simulated-rollout tests share: plans, a fleet that runs a release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_fleet.audit import verify_chain
from tests.simulators.sim_fleet import SimFleet

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
