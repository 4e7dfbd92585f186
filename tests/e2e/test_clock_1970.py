"""A device that wakes up in 1970 goes on serving and installs nothing until its clock is right."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from edgekit_fleet.demo.calls import SLOT, Kind
from edgekit_fleet.demo.traffic import Traffic, tally
from tests.e2e.conftest import MakeLine, Packages
from tests.e2e.line import field_samples, plan, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]
AGENT_1970 = Path(__file__).with_name("agent_1970.py")


def test_a_clock_in_1970_serves_and_refuses_installs(
    packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line()
    line.adopt(prepared_home)
    line.serve()
    device = line.enrol(host_kinds[1])
    assert line.ended(line.start_rollout(packages.GOOD, plan(soak=1)))["state"] == "completed"
    line.stop_agent(device)
    line.start_agent(device, (sys.executable, AGENT_1970, "run", "--home", device.home))
    traffic = Traffic(field_samples(packages.good), slot=SLOT, rate=10)
    traffic.add(device.id, device.url)
    rollout = line.start_rollout(packages.BETTER, plan(soak=1))
    until(
        lambda: (line.device(device)["reported"] or {}).get("clock_ok") is False,
        seconds=20,
        what="the device to say that its clock is wrong",
    )
    time.sleep(4)
    assert line.serves(device) == packages.GOOD
    answered = tally(traffic.answers())
    assert set(answered.per_release) == {packages.GOOD}
    assert answered.dropped == 0, answered.first_error
    line.stop_agent(device)
    line.start_agent(device)  # its clock is right now
    until(lambda: line.serves(device) == packages.BETTER, seconds=60, what="the install")
    assert line.ended(rollout)["state"] in ("completed", "rolled_back")
    traffic.stop()
