"""What is not there at the start, or goes away for a while."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgekit_fleet.demo.calls import SLOT, Kind
from edgekit_fleet.demo.traffic import Traffic, tally
from tests.e2e.conftest import MakeLine, Packages
from tests.e2e.line import field_samples, holes, outbox_seqs, plan, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


def test_without_service_and_broker_a_device_serves_and_keeps_every_window(
    packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line()
    line.adopt(prepared_home)
    line.serve()
    device = line.enrol(host_kinds[1])
    assert line.ended(line.start_rollout(packages.GOOD, plan(soak=1)))["state"] == "completed"
    line.stop_agent(device)
    line.kill_service()
    line.start_agent(device)  # broker and service are down at its start
    traffic = Traffic(field_samples(packages.good), slot=SLOT, rate=10)
    traffic.add(device.id, device.url)
    waiting = until(lambda: sum(map(len, outbox_seqs(device).values())) >= 3, seconds=20, what="windows kept")
    assert waiting
    line.serve()
    until(lambda: not any(outbox_seqs(device).values()), seconds=40, what="the outbox to be acknowledged")
    rollout = line.start_rollout(packages.BETTER, plan(soak=1))
    assert line.ended(rollout)["state"] == "completed"
    traffic.stop()
    time.sleep(1.5)
    line.stop_agent(device)
    assert holes(line.stored_seqs(device)) == {}
    answered = tally(traffic.answers())
    assert answered.dropped == 0, answered.first_error
    until(
        lambda: sum(w["requests"] for w in line.stored(device, "window")) == answered.sent,
        seconds=10,
        what=f"windows that count {answered.sent} requests",
    )


def test_a_device_that_comes_back_after_the_rollout_began_gets_it(
    packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line()
    line.adopt(prepared_home)
    line.serve()
    here, away = line.enrol(host_kinds[1]), line.enrol(host_kinds[2])
    until(lambda: line.device(away)["state"] == "online", seconds=20, what="both online")
    line.kill_agent(away)
    until(lambda: line.device(away)["state"] == "lost", seconds=60, what="the last will")
    rollout = line.start_rollout(packages.GOOD, plan(soak=1))
    until(lambda: line.serves(here) == packages.GOOD, seconds=40, what="the one that is there")
    line.start_agent(away)
    until(lambda: line.serves(away) == packages.GOOD, seconds=60, what="the one that came back")
    assert line.ended(rollout)["state"] == "completed"
