"""kill -9 of agent, service and broker at different steps: rollouts end, no telemetry window is lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgekit_fleet.demo.calls import SLOT, Device, Kind
from edgekit_fleet.demo.traffic import Traffic, tally
from tests.e2e.conftest import BROKERS, MakeLine, Packages
from tests.e2e.line import Line, OutboxWatch, demand_nothing_lost, field_samples, plan, until, wait_stored

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(360)]
EARLY = ("accepted", "downloading", "verifying", "preparing", "probing")


def two_devices(line: Line, prepared_home: Path, kinds: Sequence[Kind]) -> list[Device]:
    """A served line with both good releases and two devices on the first."""
    line.adopt(prepared_home)
    line.serve()
    devices = [line.enrol(kind) for kind in kinds[1:]]
    assert line.ended(line.start_rollout(Packages.GOOD, plan(soak=1)))["state"] == "completed"
    return devices


def roll(line: Line, ref: str) -> str:
    return line.start_rollout(ref, plan(soak=3, trial=3))


@pytest.mark.parametrize("broker", BROKERS)
def test_service_and_broker_killed_at_every_step_lose_no_request_and_no_window(
    broker: str, packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line(broker)
    devices = two_devices(line, prepared_home, host_kinds)
    before = {device.id: sum(w["requests"] for w in line.stored(device, "window")) for device in devices}
    assert before == {device.id: 0 for device in devices}
    traffic = Traffic(field_samples(packages.good), slot=SLOT, rate=10)
    for device in devices:
        traffic.add(device.id, device.url)
    targets = [packages.BETTER, packages.GOOD]
    with OutboxWatch(devices) as watch:
        plans: list[tuple[str, Sequence[str]]] = [
            ("service", EARLY),
            ("service", ("trial",)),
            ("broker", EARLY),
        ]
        if broker == "mosquitto":
            plans += [("service", ("committed",)), ("broker", ("trial",))]
        for number, (victim, steps) in enumerate(plans):
            rollout = roll(line, targets[number % 2])
            line.wait_step(rollout, steps)
            if victim == "service":
                line.kill_service()
                time.sleep(1.5)
                line.serve()
            else:
                line.kill_broker()
            assert line.ended(rollout)["state"] == "completed"
        traffic.stop()
        time.sleep(1.5)
        wait_stored(line, watch)
        for device in devices:
            line.stop_agent(device)
        demand_nothing_lost(line, watch)
    for device in devices:
        answered = tally(a for a in traffic.answers() if a.device == device.id)
        assert answered.dropped == 0, answered.first_error
        assert sum(w["requests"] for w in line.stored(device, "window")) == answered.sent
        assert (answered.accuracy(packages.GOOD) or 0) > 0.9
        assert (answered.accuracy(packages.BETTER) or 0) > 0.9


def test_an_agent_killed_at_every_step_serves_again_and_the_rollout_ends(
    packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line()
    devices = two_devices(line, prepared_home, host_kinds)
    victim, other = devices
    targets = [packages.BETTER, packages.GOOD]
    with OutboxWatch(devices) as watch:
        for number, steps in enumerate((("downloading", "verifying"), ("preparing", "probing"), ("trial",))):
            rollout = roll(line, targets[number % 2])
            line.wait_step(rollout, steps)
            line.kill_agent(victim)
            time.sleep(1.0)
            line.start_agent(victim)
            state = line.ended(rollout)
            assert state["state"] in ("completed", "rolled_back"), state["reason"]
            if state["state"] == "completed":
                assert line.serves(other) == targets[number % 2]
            until(lambda: line.serves(victim) != "", seconds=20, what="the victim to serve")
        time.sleep(1.5)
        wait_stored(line, watch)
        for device in devices:
            line.stop_agent(device)
        demand_nothing_lost(line, watch)
    boots = line.stored_seqs(victim)
    assert len(boots) >= 3
