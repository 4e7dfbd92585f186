"""A release that is wrong in the field: enforced probes keep it from serving, observed ones take it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_fleet.demo.calls import SLOT, Kind
from edgekit_fleet.demo.traffic import Traffic, tally
from tests.e2e.conftest import MakeLine, Packages
from tests.e2e.line import field_samples, plan, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]


def test_enforce_serves_no_answer_of_it_and_observe_takes_it_back(
    packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line()
    line.adopt(prepared_home)
    line.serve()
    devices = [line.enrol(kind) for kind in host_kinds[1:]]
    assert line.ended(line.start_rollout(packages.GOOD, plan(soak=1)))["state"] == "completed"
    traffic = Traffic(field_samples(packages.good), slot=SLOT, rate=10)
    for device in devices:
        traffic.add(device.id, device.url)

    state = line.ended(line.start_rollout(packages.BAD, plan()))
    assert state["state"] == "rolled_back"
    steps = {member["step"] for member in state["rings"][0]["members"]}
    assert steps == {"reverted"}, state["rings"][0]["members"]
    assert tally(traffic.answers()).per_release.keys() <= {packages.GOOD}

    line.calls.probes(packages.good / "probes.npz", policy="observe", min_accuracy=0.8)
    state = line.ended(line.start_rollout(packages.BAD, plan(soak=4, early_stop=False)))
    assert state["state"] == "rolled_back"
    assert {g["gate"]: g["verdict"] for g in state["rings"][0]["gates"]}["probes"] == "fail"
    until(lambda: all(line.serves(d) == packages.GOOD for d in devices), seconds=20, what="all to be back")
    traffic.stop()
    answered = tally(traffic.answers())
    assert answered.per_release[packages.BAD] > 0
    assert (answered.accuracy(packages.BAD) or 0) < 0.5
    assert answered.dropped == 0, answered.first_error
    assert traffic.answers()[-1].release == packages.GOOD
    explained = line.calls.edgekit("rollout", "explain", state["id"], "--json").json()
    assert any("probes" in judgement["reason"] for judgement in explained["judgements"])
