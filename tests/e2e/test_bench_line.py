"""Measuring through the whole line: real service, broker and agents; killed between, and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.documents import Envelope, Measurements
from edgekit_fleet.demo.calls import Kind
from edgekit_fleet.demo.processes import program
from tests.e2e.conftest import MakeLine, Packages
from tests.e2e.line import Json, Line, plan, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


def state(line: Line, cid: str) -> Json:
    """One measurement."""
    return line.get(f"/v1/benches/{cid}")


def test_a_variant_is_measured_on_an_enrolled_device_and_the_device_goes_on(
    packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line()
    line.adopt(prepared_home)
    line.serve()
    device = line.enrol(host_kinds[0])
    assert line.ended(line.start_rollout(packages.GOOD, plan(soak=1)))["state"] == "completed"
    until(lambda: line.device(device)["state"] == "online", seconds=20, what="the device to be online")
    out = line.folder / "figures.json"
    asked = ("bench", packages.good / "package", "--device", device.id)
    bounds = ("--runs", "40", "--seconds", "2", "--out", out, "--json")
    done = line.calls.edgekit(*asked, *bounds)
    benches = done.json()["benches"]
    assert {item["state"] for item in benches} == {"done"}, benches
    found = Measurements.parse(out.read_bytes()).measurements
    assert len(found) == len(benches) >= 1
    for item in found:
        assert item.on_target is (item.hardware == item.profile)
        assert item.figures.n <= 40
        assert item.figures.backend
        assert item.figures.load is not None
    assert line.serves(device) == packages.GOOD
    listed = line.calls.edgekit("bench", "list", "--json").json()["benches"]
    assert {item["id"] for item in listed} == {item["id"] for item in benches}

    # An agent that is killed while it measures says so when it is back.
    words = ("bench", packages.GOOD, "--device", device.id, "--seconds", "60", "--runs", "9999")
    cid = line.calls.edgekit(*words, "--no-wait", "--json").json()["benches"][0]["id"]
    book = device.home / "state" / "bench.json"
    until(lambda: cid in book.read_text(), seconds=20, what="the measurement to begin")
    line.kill_agent(device)
    line.start_agent(device)
    until(lambda: state(line, cid)["state"] not in ("waiting", "sent"), seconds=30, what="an end")
    if state(line, cid)["state"] == "failed":
        assert state(line, cid)["reason"]["code"] == "restarted"
    assert line.serves(device) == packages.GOOD

    # Without a network: by file, verified and signed all the same.
    request, results = line.folder / "request", line.folder / "results"
    order = ("bench", packages.GOOD, "--device", device.id, "--runs", "5")
    line.calls.edgekit(*order, "--offline-request", request)
    agent: list[str | Path] = [*map(str, program("edgekit-agent", "edgekit_agent.cli")), "bench", request]
    agent += ["--out", results, "--home", device.home]
    line.stop_agent(device)
    line.children.run(agent, seconds=60, expect=(0,))
    imported = line.calls.edgekit("bench", "import", results, "--json").json()
    assert {item["state"] for item in imported["benches"]} == {"done"}
    line.children.run(agent, seconds=60, expect=(3,))
    assert Envelope.parse(results.read_bytes()).signatures
