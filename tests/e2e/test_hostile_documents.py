"""Foreign, duplicate, out-of-order and malformed documents from a raw MQTT client change nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edgekit_fleet.demo.calls import Device, Kind
from tests.e2e.conftest import BROKERS, MakeLine, Packages
from tests.e2e.line import Json, Line, holes, plan, until
from tests.fleet.mqtt_client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]


def telemetry(line: Line, device: Device) -> Json:
    """The newest window of a device, as it travelled."""
    return {k: v for k, v in line.stored(device, "window")[-1].items() if v is not None}


@pytest.mark.parametrize("broker", BROKERS)
def test_documents_of_a_device_gone_bad_harm_nobody(
    broker: str, packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, prepared_home: Path
) -> None:
    line = make_line(broker)
    line.adopt(prepared_home)
    line.serve()
    bad, good = line.enrol(host_kinds[1]), line.enrol(host_kinds[2])
    assert line.ended(line.start_rollout(packages.GOOD, plan(soak=2)))["state"] == "completed"
    until(lambda: len(line.stored(bad, "window")) >= 3, seconds=20, what="some windows")
    line.stop_agent(bad)
    identity = line.identity(bad)
    known, facts = line.stored(bad), line.device(bad)
    window = telemetry(line, bad)
    base = f"ek/1/{identity['tenant']}/d"
    mine, theirs = f"{base}/{bad.id}", f"{base}/{good.id}"
    old = {**window, "seq": 0}
    ahead = {**window, "seq": window["seq"] + 1, "oldest": window["seq"] + 1}
    with Client(identity["mqtt_port"], identity["username"], identity["password"]) as client:
        for payload in (window, window, old):
            client.publish(f"{mine}/tm/digits", json.dumps(payload).encode())
        for junk in (b"", b"{", b"[]", b'{"record":"window"}', b"\xff" * 2000, b'{"a":' * 3000, b"null"):
            for leaf in ("tm/digits", "reported", "presence", "profile", "ev"):
                client.publish(f"{mine}/{leaf}", junk)
        stale = {**facts["reported"], "seq": 0, "boot_id": "00000000-old", "step": "failed", "slots": {}}
        client.publish(f"{mine}/reported", json.dumps(stale).encode(), retain=True)
        will = {"schema": 1, "state": "lost", "session": 0, "boot_id": "x", "agent": "0", "at": 0.0}
        client.publish(f"{mine}/presence", json.dumps(will).encode(), retain=True)
        client.publish(f"{mine}/tm/nosuchslot", json.dumps({**ahead, "slot": "other"}).encode())
        for leaf in ("tm/digits", "reported", "presence", "desired", "ack"):
            client.publish(f"{theirs}/{leaf}", json.dumps({**ahead, "seq": 10**9}).encode(), retain=True)
        client.publish(f"{base}/nobody/tm/digits", json.dumps(ahead).encode())
        client.subscribe(f"{base}/+/desired")
        client.subscribe("#")
        time.sleep(1.0)
        assert {topic for topic in client.topics() if "/d/" in topic} <= {f"{mine}/desired", f"{mine}/ack"}
        client.publish(f"{mine}/tm/digits", json.dumps(ahead).encode())  # the one that is new
        until(lambda: len(line.stored(bad)) > len(known), seconds=10, what="the new window to be stored")
    assert [row["seq"] for row in line.stored(bad)] == [*(row["seq"] for row in known), ahead["seq"]]
    after = line.device(bad)
    assert after["reported"] == facts["reported"]
    assert after["state"] == facts["state"]
    assert line.device(good)["state"] == "online"
    assert line.serves(good) == packages.GOOD
    assert all(row["seq"] < 10**8 for row in line.stored(good))
    assert holes(line.stored_seqs(good)) == {}
    count = len(line.stored(good))
    until(lambda: len(line.stored(good)) > count + 1, seconds=20, what="the other device to go on")
    assert line.service is not None
    assert line.service.alive
