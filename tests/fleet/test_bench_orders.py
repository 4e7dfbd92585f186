"""Measurements by threat: hostile results, replays, silence, strangers' files, a service killed between."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgekit.documents import (
    BenchFigures,
    BenchOrder,
    BenchResult,
    BenchResults,
    Envelope,
    Measurements,
    Presence,
    Reason,
    Signature,
)
from edgekit.errors import TrustError, UsageError
from edgekit.ports import Subscriber
from edgekit.topics import device_topic
from edgekit_fleet.bench_orders import ask_benches, bench, benches, import_results, write_request
from edgekit_fleet.cli.bench import bench as bench_command
from edgekit_fleet.cli.bench import exit_code
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import DeviceRow
from edgekit_fleet.errors import ConflictError, UnknownNameError
from edgekit_fleet.events import events_of
from edgekit_fleet.releases import add_release, sign_release
from edgekit_fleet.service.app import create_app
from edgekit_fleet.service.bench_part import BenchSender, bench_part
from edgekit_fleet.service.ingest import Ingest
from tests.conftest import FrozenClock
from tests.fleet.homes import FACTS, served, write_package

REF = "digits@1.0.0"
VARIANT = "x86-64-litert-tflite-int8"
KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)


class Wire:
    """The service's transport with a broker that can refuse to take anything."""

    def __init__(self) -> None:
        self.connected, self.takes = True, True
        self.sent: list[tuple[str, bytes, bool]] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        self.sent.append((topic, payload, retain))
        return self.takes

    def start(self, subscriptions: Sequence[str], on_message: Subscriber) -> None:
        """Nothing comes in here."""

    def flush(self, seconds: float) -> bool:
        return True

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """It never changes."""

    def pause(self) -> None:
        """Nothing comes in here."""

    def stop(self) -> None:
        """Nothing to end."""


class Line:
    """A fleet with two devices, a signed release, a wire, the sender and the ingest."""

    def __init__(self, fleet: Fleet, folder: Path, clock: FrozenClock) -> None:
        self.clock, self.folder = clock, folder
        self.wire = Wire()
        self.fleet = replace(fleet, transport=self.wire)
        self.manifest = write_package(folder / "package")
        add_release(self.fleet, folder / "package", actor="test")
        sign_release(self.fleet, REF, actor="test")
        for name in ("cam-1", "cam-2"):
            self.add_device(name)
        self.sender = BenchSender(self.fleet)
        self.ingest = Ingest(self.fleet, events_of(self.fleet))

    def add_device(self, name: str, *, hardware: str = "x86-64-litert", state: str = "online") -> None:
        key = KEY if name == "cam-1" else Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        facts = replace(FACTS, profiles=(hardware, "x86-64-litert"))
        row = DeviceRow(
            id=name,
            hardware=hardware,
            facts=facts.to_dict(),
            labels={},
            state=state,
            enrolled=0.0,
            public_key=public,
            password="x",
        )
        with self.fleet.database.write() as session:
            session.add(row)

    def ask(self, *devices: str, **body: Any) -> list[dict[str, Any]]:
        given = {"release": REF, "devices": list(devices or ("cam-1",)), **body}
        found: list[dict[str, Any]] = ask_benches(self.fleet, given, actor="test")["benches"]
        return found

    def sent(self) -> BenchOrder:
        """The next order that goes out."""
        self.wire.sent.clear()
        self.sender.tick()
        [(topic, payload, retained)] = self.wire.sent
        assert not retained
        order = BenchOrder.from_dict(Envelope.parse(payload).signed)
        assert topic == device_topic("default", order.device, "cmd", order.cid)
        return order

    def result(self, order: BenchOrder, *, device: str = "cam-1", **changes: Any) -> BenchResult:
        """An honest result, changed."""
        figures = {
            "median_us": 900.0,
            "p90_us": 950.0,
            "p99_us": 1000.0,
            "n": 100,
            "threads": 1,
            "memory_mb": 50.0,
            "base_mb": 40.0,
            "runtime": "litert",
            "runtime_version": "2.3.0",
            "backend": "xnnpack",
            **changes.pop("figures", {}),
        }
        given: dict[str, Any] = {
            "cid": order.cid,
            "device": device,
            "state": "done",
            "at": 0.0,
            "digest": order.digest,
            "figures": BenchFigures(**figures),
            **changes,
        }
        return BenchResult(**given)

    def arrives(self, result: BenchResult | bytes, *, device: str = "cam-1", cid: str = "") -> None:
        """A result comes in over MQTT."""
        payload = result if isinstance(result, bytes) else result.to_bytes()
        name = cid or (result.cid if isinstance(result, BenchResult) else "c0ffee0123")
        from edgekit_fleet.rollout.reducers import Arrived, read_message

        found = read_message("default", device_topic("default", device, "res", name), payload)
        if isinstance(found, Arrived):
            self.ingest.store([found])
        else:
            self.ingest.dropped.add(found)

    def state(self, cid: str) -> dict[str, Any]:
        return bench(self.fleet, cid)


@pytest.fixture
def line(base_fleet: Fleet, tmp_path: Path, clock: FrozenClock) -> Line:
    return Line(base_fleet, tmp_path, clock)


def test_an_order_goes_out_and_its_figures_are_kept_and_labelled(line: Line) -> None:
    [asked] = line.ask()
    assert asked["state"] == "waiting"
    order = line.sent()
    assert (order.cid, order.digest) == (asked["id"], line.manifest.variants[0].digest)
    line.clock.advance(5)
    line.arrives(line.result(order))
    found = line.state(order.cid)
    assert found["state"] == "done"
    assert found["measurement"]["on_target"] is True
    assert found["measurement"]["figures"]["median_us"] == 900.0
    assert benches(line.fleet, device="cam-2", release=None, limit=5) == {"benches": []}


def test_one_order_at_a_time_goes_to_a_device_and_none_to_one_that_is_away(line: Line) -> None:
    line.add_device("cam-3", state="offline")
    line.ask("cam-1", "cam-3")
    line.ask("cam-1")
    first = line.sent()
    assert line.sender.tick() == 0
    line.clock.advance(2)
    line.arrives(
        line.result(first, state="refused", figures={}, reason=Reason(code="busy", text="in a trial"))
    )
    assert line.state(first.cid)["reason"]["code"] == "busy"
    second = line.sent()
    assert second.device == "cam-1"
    assert second.cid != first.cid


def test_on_target_is_only_what_ran_on_the_variants_own_profile(line: Line) -> None:
    line.add_device("other", hardware="some-laptop")
    line.ask("other")
    with line.fleet.database.write() as session:
        from edgekit_fleet.benches import due, measurement, record_result, send
        from edgekit_fleet.trust.director import Director
        from edgekit_fleet.trust.keys import DIRECTOR

        director = Director.load(line.fleet.repository.key_folder(DIRECTOR))
        [row] = due(session, now=line.clock.now())
        sent = BenchOrder.from_dict(Envelope.parse(send(row, director, now=line.clock.now())).signed)
        result = line.result(sent, device="other")
        assert record_result(session, "other", result, now=line.clock.now() + 5)
        found = measurement(row)
    assert found is not None
    assert (found.hardware, found.profile, found.on_target) == ("some-laptop", "x86-64-litert", False)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"n": 5000}, "2000 were ordered"),
        ({"threads": 4}, "1 were ordered"),
        ({"runtime": "onnxruntime"}, "the variant is for litert"),
        ({"median_us": 9e8, "p90_us": 9e8, "p99_us": 9e8}, "more time than has passed"),
        ({"base_mb": 500.0}, "less memory"),
    ],
)
def test_figures_that_cannot_be_are_no_measurement(line: Line, changes: dict[str, Any], why: str) -> None:
    line.ask()
    order = line.sent()
    line.clock.advance(5)
    line.arrives(line.result(order, figures=changes))
    found = line.state(order.cid)
    assert found["measurement"] is None
    assert (found["state"], found["reason"]["code"]) == ("failed", "implausible")
    assert why in found["reason"]["text"]


def test_hostile_results_leave_no_trace(line: Line) -> None:
    line.ask()
    order = line.sent()
    line.clock.advance(5)
    honest = line.result(order)
    body = honest.to_dict()
    line.arrives(line.result(order, device="cam-2"), device="cam-2")
    line.arrives(line.result(order, device="cam-2"))
    line.arrives(line.result(order, digest="sha256:" + "0" * 64))
    line.arrives(honest, cid="another0000")
    line.arrives(line.result(replace(order, cid="neverasked0")))
    for junk in (
        b"",
        b"[]",
        b"{" * 4000,
        json.dumps({**body, "figures": {**body["figures"], "median_us": -1}}).encode(),
        json.dumps({**body, "figures": {**body["figures"], "p90_us": 1}}).encode(),
        json.dumps({**body, "figures": {**body["figures"], "n": 10**9}}).encode(),
        json.dumps({**body, "extra": "x" * 40_000}).encode(),
        json.dumps({**body, "state": "failed", "reason": {"code": "x", "text": "y" * 5000}}).encode(),
        json.dumps({**body, "figures": {**body["figures"], "backend": "\x1b[2J"}}).encode(),
        json.dumps({**body, "reason": {"code": "x", "text": "a\nb"}}).encode(),
        b'{"median_us": NaN}',
    ):
        line.arrives(junk, cid=order.cid)
    assert line.state(order.cid)["state"] == "sent"
    assert line.ingest.dropped.counts["malformed"] >= 9
    line.arrives(honest)
    assert line.state(order.cid)["state"] == "done"
    line.arrives(line.result(order, figures={"median_us": 1.0}))
    assert line.state(order.cid)["measurement"]["figures"]["median_us"] == 900.0


def test_silence_ends_by_itself_and_a_late_result_changes_nothing(line: Line) -> None:
    line.ask()
    order = line.sent()
    line.clock.advance(order.expires - line.clock.now() + 31)
    line.sender.tick()
    found = line.state(order.cid)
    assert (found["state"], found["reason"]["code"]) == ("expired", "expired_sent")
    line.arrives(line.result(order))
    assert line.state(order.cid)["state"] == "expired"


def test_a_device_that_never_comes_online_is_not_waited_for_for_ever(line: Line) -> None:
    line.add_device("cam-3", state="offline")
    [asked] = line.ask("cam-3", wait=60.0)
    line.clock.advance(61)
    line.sender.tick()
    assert line.state(asked["id"])["reason"]["code"] == "expired_waiting"


def test_an_order_the_broker_did_not_take_waits_again(line: Line) -> None:
    [asked] = line.ask()
    line.wire.takes = False
    line.sender.tick()
    assert line.wire.sent
    assert line.state(asked["id"])["state"] == "waiting"


def test_a_sender_that_was_killed_leaves_the_lease_to_the_next(line: Line) -> None:
    line.ask()
    line.sent()
    line.ask("cam-2")
    other = BenchSender(line.fleet)
    assert other.tick() == 0
    line.clock.advance(11)
    assert other.tick() == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"release": "digits@9.9.9"}, UnknownNameError),
        ({"package": "sha256:" + "0" * 64}, ConflictError),
        ({"devices": ["nobody"]}, UnknownNameError),
        ({"devices": []}, UsageError),
        ({"devices": [], "where": "colour=red"}, UsageError),
        ({"devices": [], "where": "hardware=jetson*"}, UsageError),
        ({"variants": ["x86-64-litert-tflite-fp4"]}, UnknownNameError),
        ({"seconds": 1e9}, UsageError),
        ({"threads": 0}, UsageError),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    line: Line, body: dict[str, Any], error: type[Exception]
) -> None:
    given = {"release": REF, "devices": ["cam-1"], **body}
    from edgekit.errors import EdgekitError

    with pytest.raises(EdgekitError) as caught:
        ask_benches(line.fleet, given, actor="test")
    assert isinstance(caught.value, error) or caught.value.code == "bad_document"
    assert benches(line.fleet, device=None, release=None, limit=5) == {"benches": []}


def test_a_query_chooses_devices_as_a_ring_does(line: Line) -> None:
    found = line.ask(devices=[], where="hardware=x86-64-* device!=cam-2")
    assert [item["device"] for item in found] == ["cam-1"]


# files -------------------------------------------------------------------------------------------


def signed(results: BenchResults, key: Ed25519PrivateKey = KEY) -> bytes:
    """As a device writes them."""
    envelope = Envelope(signed=results.to_dict(), signatures=())
    sig = key.sign(b"edgekit bench results\n" + envelope.payload()).hex()
    return replace(envelope, signatures=(Signature(keyid="cam-1", sig=sig),)).to_bytes()


def requested(line: Line) -> BenchOrder:
    """The order of a request file."""
    body = {"release": REF, "devices": ["cam-1"], "wait": 7 * 86_400.0}
    write_request(line.fleet, body, line.folder / "request", actor="test")
    with zipfile.ZipFile(line.folder / "request") as archive:
        names = set(archive.namelist())
        orders = json.loads(archive.read("orders.json"))["orders"]
    assert {"tuf/metadata/timestamp.json", "tuf/metadata/1.root.json"} <= names
    shas = {item.sha256 for item in line.manifest.all_files()}
    assert {f"blobs/sha256/{sha}" for sha in shas} <= names
    assert not [name for name in names if "key" in name or "fleet.db" in name or "token" in name]
    [envelope] = orders
    return BenchOrder.from_dict(envelope["signed"])


def test_a_file_goes_out_and_its_results_come_back_once(line: Line) -> None:
    order = requested(line)
    assert line.sender.tick() == 0, "what travels as a file is not sent"
    line.clock.advance(86_400)
    data = signed(BenchResults(device="cam-1", results=(line.result(order),)))
    taken = import_results(line.fleet, data, actor="test")
    assert [item["state"] for item in taken["benches"]] == ["done"]
    assert import_results(line.fleet, data, actor="test")["dropped"] == [order.cid]


def test_a_file_that_its_device_did_not_write_is_refused(line: Line) -> None:
    order = requested(line)
    line.clock.advance(5)
    results = BenchResults(device="cam-1", results=(line.result(order),))
    altered = json.loads(signed(results))
    altered["signed"]["results"][0]["figures"]["median_us"] = 1.0
    for data in (signed(results, Ed25519PrivateKey.generate()), json.dumps(altered).encode()):
        with pytest.raises(TrustError):
            import_results(line.fleet, data, actor="test")
    assert line.state(order.cid)["state"] == "file"


# over HTTP and on the command line ----------------------------------------------------------------


def test_operators_ask_over_http_and_devices_do_not(line: Line) -> None:
    body = {"release": REF, "devices": ["cam-1"]}
    app = create_app(line.fleet, parts=[bench_part(line.fleet)])
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.post("/v1/benches", json=body).status_code == 401
        headers = {"Authorization": f"Bearer {line.fleet.home.operator_token()}"}
        answer = client.post("/v1/benches", json={**body, "wait": 500}, headers=headers)
        assert answer.status_code == 200, answer.text
        [item] = answer.json()["benches"]
        found = client.get(f"/v1/benches/{item['id']}", headers=headers).json()
        assert found["variant"] == VARIANT
        listed = client.get("/v1/benches", headers=headers).json()["benches"]
        assert [one["id"] for one in listed] == [item["id"]]
        assert client.get("/v1/benches/nothing", headers=headers).status_code == 404


def test_the_command_line_lists_shows_and_writes_the_file_for_the_compiler(line: Line) -> None:
    line.ask()
    order = line.sent()
    line.clock.advance(5)
    line.arrives(line.result(order, figures={"load": 0.5, "throttled": False}))
    home = ["--home", str(line.fleet.home.path)]
    run = CliRunner()
    out = line.folder / "figures.json"
    listed = run.invoke(bench_command, ["list", *home, "--out", str(out)])
    assert listed.exit_code == 0, listed.output
    assert "900 µs" in listed.output
    [found] = Measurements.parse(out.read_bytes()).measurements
    assert (found.digest, found.on_target) == (order.digest, True)
    shown = run.invoke(bench_command, ["show", order.cid, *home])
    assert "on target" in shown.output
    assert "load 0.5 before" in shown.output
    refused = run.invoke(bench_command, [REF, "--device", "cam-1", *home])
    assert refused.exit_code != 0
    assert "no service runs" in str(refused.exception)
    request = line.folder / "r.zip"
    words = [str(line.folder / "package"), "--device", "cam-1", "--offline-request", str(request)]
    written = run.invoke(bench_command, [*words, *home])
    assert written.exit_code == 0, written.output
    assert request.exists()


def test_the_exit_code_is_that_of_the_worst() -> None:
    states = ("done", "refused", "failed", "expired")
    assert exit_code([{"state": "done"}]) == 0
    assert [exit_code([{"state": "done"}, {"state": state}]) for state in states] == [0, 3, 1, 4]


def test_presence_is_needed_to_be_sent_to(line: Line) -> None:
    line.add_device("cam-4", state="offline")
    line.ask("cam-4")
    assert line.sender.tick() == 0
    from edgekit_fleet.devices import record_presence

    with line.fleet.database.write() as session:
        online = Presence(state="online", session=1, boot_id="b", agent="0", at=0.0)
        record_presence(session, "cam-4", online, now=line.clock.now())
    assert line.sender.tick() == 1
