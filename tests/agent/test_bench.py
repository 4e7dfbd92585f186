"""Measuring on command: only for who may ask, once, never in the way, and every end is told."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from edgekit.documents import BenchOrder, BenchResult, BenchResults, Envelope, Signature
from edgekit.errors import DocumentError
from edgekit_agent import bench_child
from edgekit_agent.bench_book import BenchBook
from edgekit_agent.bench_file import CONTEXT, ORDERS, run_file
from edgekit_agent.bench_run import Bench, make_bench
from edgekit_agent.clock import SystemClock
from edgekit_agent.config import Home, Limits
from edgekit_agent.detect import Detected
from edgekit_agent.errors import BusyError, ConfigError, VerificationError
from tests.agent.harness import PATIENCE, Agent, make_home, running
from tests.simulators.service import FakeService, fake_service
from tests.simulators.toy_model import FACTS, Toy, make

PLACES = {"litert": "tests.simulators.toy_model:ToyRuntime"}
SEEN = Detected(facts=FACTS, runtimes=PLACES)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measuring process finds the toy runtime below the working folder."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service with a signed toy package."""
    with fake_service() as found:
        yield found


def order(toy: Toy, **changes: Any) -> BenchOrder:
    """An order to measure `toy` on ``dev-1``, good for a minute."""
    now = time.time()
    given: dict[str, Any] = {
        "cid": "c0ffee0123",
        "device": "dev-1",
        "issued": now - 1,
        "expires": now + 60,
        "release": toy.manifest.ref,
        "package": toy.manifest.digest,
        "variant": toy.variant.id,
        "digest": toy.variant.digest,
        "runs": 50,
        "seconds": 2.0,
        **changes,
    }
    return BenchOrder(**given)


def signed(service: FakeService, document: BenchOrder, signer: CryptoSigner | None = None) -> bytes:
    """`document` signed by the director, or by `signer`."""
    key = signer or service.repo.signers["director"]
    envelope = Envelope(signed=document.to_dict(), signatures=())
    made = key.sign(envelope.payload())
    return replace(envelope, signatures=(Signature(keyid=made.keyid, sig=made.signature),)).to_bytes()


def bench_of(home: Home, service: FakeService, **limits: Any) -> Bench:
    """What ``dev-1`` measures with."""
    _, identity = make_home(home.path, service)
    return make_bench(home, Limits(**limits), identity, SEEN, SystemClock(), PATIENCE)


def measure(bench: Bench, envelope: bytes) -> BenchResult:
    """Carry an order out."""
    return bench.measure(envelope, stop=threading.Event())


def test_an_order_is_carried_out_and_the_store_is_left_alone(service: FakeService, tmp_path: Path) -> None:
    toy = make()
    service.add(toy)
    home = Home(path=tmp_path / "dev")
    result = measure(bench_of(home, service), signed(service, order(toy)))
    figures = result.figures
    assert figures is not None, result.reason
    assert (result.state, result.digest, result.hardware) == ("done", toy.variant.digest, "toy-board")
    assert 0 < figures.median_us <= figures.p90_us <= figures.p99_us
    assert (figures.n, figures.threads, figures.backend, figures.inputs) == (50, 1, "numpy", "probes")
    assert (figures.runtime, figures.runtime_version) == ("litert", "2.3.0")
    assert figures.memory_mb >= figures.base_mb > 0
    assert figures.load is not None
    assert not home.store.exists()
    assert not (home.state / "bench").exists()


def test_a_replayed_order_burns_nothing(service: FakeService, tmp_path: Path) -> None:
    toy = make()
    service.add(toy)
    bench = bench_of(Home(path=tmp_path / "dev"), service)
    envelope = signed(service, order(toy))
    measure(bench, envelope)
    asked = len(service.log)
    with pytest.raises(VerificationError) as caught:
        measure(bench, envelope)
    assert caught.value.code == "replayed"
    assert len(service.log) == asked


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"issued": time.time() - 100, "expires": time.time() - 1}, "expired"),
        ({"issued": time.time() + 4000, "expires": time.time() + 5000}, "not_yet"),
        ({"device": "dev-2"}, "wrong_device"),
    ],
)
def test_a_genuine_order_out_of_its_time_or_place_is_refused(
    service: FakeService, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    toy = make()
    service.add(toy)
    bench = bench_of(Home(path=tmp_path / "dev"), service)
    with pytest.raises(VerificationError) as caught:
        measure(bench, signed(service, order(toy, **changes)))
    assert (caught.value.code, caught.value.stage) == (code, "envelope")
    assert not bench.book.knows("c0ffee0123")


def test_nobody_but_the_director_can_make_a_device_measure(service: FakeService, tmp_path: Path) -> None:
    toy = make()
    service.add(toy)
    bench = bench_of(Home(path=tmp_path / "dev"), service)
    genuine = json.loads(signed(service, order(toy)))
    altered = {**genuine, "signed": {**genuine["signed"], "seconds": 120.0}}
    forged = [
        (signed(service, order(toy), CryptoSigner.generate_ed25519()), "unknown_key"),
        (json.dumps({**genuine, "signatures": []}).encode(), "unsigned"),
        (json.dumps(altered).encode(), "bad_signature"),
        (service.envelope(service.wish(toy)), "malformed"),
    ]
    for envelope, code in forged:
        with pytest.raises(VerificationError) as caught:
            measure(bench, envelope)
        assert caught.value.code == code


def test_an_order_is_never_a_desired_document(service: FakeService, tmp_path: Path) -> None:
    from edgekit.documents import Desired

    with pytest.raises(DocumentError):
        Desired.from_dict(order(make()).to_dict())


@pytest.mark.parametrize(
    ("made", "changes", "limits", "code"),
    [
        ({"runtime": "tflm"}, {}, {}, "incompatible"),
        ({}, {"threads": 200}, {}, "too_many_threads"),
        ({}, {}, {"bench_seconds": 0}, "bench_disabled"),
        ({}, {"digest": "sha256:" + "0" * 64}, {}, "package_mismatch"),
    ],
)
def test_what_does_not_fit_this_device_is_refused_before_anything_is_fetched(
    service: FakeService,
    tmp_path: Path,
    made: dict[str, Any],
    changes: dict[str, Any],
    limits: dict[str, Any],
    code: str,
) -> None:
    toy = make(**made)
    service.add(toy)
    bench = bench_of(Home(path=tmp_path / "dev"), service, **limits)
    result = measure(bench, signed(service, order(toy, **changes)))
    assert result.state == "refused"
    assert result.reason is not None
    assert result.reason.code == code
    assert not [line for line, _ in service.log if line.startswith("/blobs/")]


def test_a_package_that_was_invalidated_is_not_measured(service: FakeService, tmp_path: Path) -> None:
    toy = make()
    service.add(toy)
    service.repo.remove_target(f"packages/toy/{toy.manifest.version}/package.json")
    service.repo.publish()
    bench = bench_of(Home(path=tmp_path / "dev"), service)
    result = measure(bench, signed(service, order(toy)))
    assert result.reason is not None
    assert (result.state, result.reason.code) == ("refused", "target_missing")
    assert bench.book.knows(result.cid), "it is not looked into a second time"


@pytest.mark.parametrize(
    ("behaviour", "code"), [("crash", "bench_crashed"), ("refuse", "load_failed"), ("fail", "model_failed")]
)
def test_a_model_that_breaks_costs_a_result_and_nothing_else(
    service: FakeService, tmp_path: Path, behaviour: str, code: str
) -> None:
    toy = make(behaviour=behaviour)
    service.add(toy)
    result = measure(bench_of(Home(path=tmp_path / "dev"), service), signed(service, order(toy)))
    assert result.reason is not None
    assert (result.state, result.reason.code) == ("failed", code)


def test_a_model_that_never_answers_is_ended(service: FakeService, tmp_path: Path) -> None:
    toy = make(behaviour="hang early")
    service.add(toy)
    bench = replace(bench_of(Home(path=tmp_path / "dev"), service), limits=Limits(child_seconds=1.5))
    result = measure(bench, signed(service, order(toy, seconds=0.1)))
    assert result.reason is not None
    assert (result.state, result.reason.code) == ("failed", "bench_timeout")


def test_a_model_that_takes_too_much_memory_is_ended(service: FakeService, tmp_path: Path) -> None:
    toy = make(behaviour="hang early")
    service.add(toy)
    bench = bench_of(Home(path=tmp_path / "dev"), service, bench_memory_mb=8)
    result = measure(bench, signed(service, order(toy)))
    assert result.state == "failed"
    assert result.reason is not None
    assert result.reason.code in ("low_memory", "bench_crashed")


def test_a_disk_that_takes_nothing_is_a_result(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = make()
    service.add(toy)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgekit_agent.bench_run.Store.has", full)
    result = measure(bench_of(Home(path=tmp_path / "dev"), service), signed(service, order(toy)))
    assert result.reason is not None
    assert (result.state, result.reason.code) == ("failed", "disk_full")


def test_two_measurements_never_run_at_once(service: FakeService, tmp_path: Path) -> None:
    toy = make()
    service.add(toy)
    bench = bench_of(Home(path=tmp_path / "dev"), service)
    with bench.book.alone(), pytest.raises(BusyError):
        measure(bench, signed(service, order(toy)))


def test_a_clock_set_back_makes_no_order_new_again(service: FakeService, tmp_path: Path) -> None:
    toy = make()
    service.add(toy)
    bench = bench_of(Home(path=tmp_path / "dev"), service)
    old = order(toy)
    bench.book.take(old, now=time.time())
    bench.book.take(order(toy, cid="c0ffee0124"), now=old.expires + 1000)
    with pytest.raises(VerificationError) as caught:
        measure(bench, signed(service, old))
    assert caught.value.code == "replayed"


def test_expired_orders_make_room_and_a_book_that_is_full_refuses(tmp_path: Path) -> None:
    book, toy = BenchBook(tmp_path), make()
    for number in range(1000):
        if number in (0, 999):
            book.take(order(toy, cid=f"c{number:09d}", expires=time.time() + 60), now=time.time())
    kept = {f"d{number:09d}": time.time() + 60 for number in range(998)}
    body = json.loads((tmp_path / "bench.json").read_text())
    (tmp_path / "bench.json").write_text(json.dumps({**body, "taken": {**body["taken"], **kept}}))
    with pytest.raises(BusyError):
        book.take(order(toy), now=time.time())
    book.take(order(toy), now=time.time() + 61)
    assert not book.knows("c000000000")


# the resident agent ------------------------------------------------------------------------------


def results(agent: Agent) -> list[BenchResult]:
    """What waits to be sent: there is no broker in these tests."""
    return list(agent.supervisor._bencher._unsent)


def command(agent: Agent, service: FakeService, document: BenchOrder) -> None:
    """A command arrives."""
    agent.supervisor._bencher.offer(document.cid, signed(service, document))


async def test_the_agent_measures_while_it_serves_and_its_slot_stays(
    service: FakeService, tmp_path: Path
) -> None:
    toy, other = make(), make("2.0.0", padding=10)
    service.add(toy)
    service.add(other)
    async with running(tmp_path / "dev", service, detected=SEEN) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
        await agent.until(lambda: not agent.supervisor._lifecycle.busy, "the end of the deployment")
        active = agent.supervisor.host.active("toy")
        command(agent, service, order(other))
        await agent.until(lambda: len(results(agent)) == 1, "a result")
        assert results(agent)[0].state == "done"
        assert agent.supervisor.host.active("toy") is active
        asked = [line for line, _ in service.log if line.startswith("/blobs/")]
        command(agent, service, order(toy, cid="c0ffee0124"))
        await agent.until(lambda: len(results(agent)) == 2, "a second result")
        assert [line for line, _ in service.log if line.startswith("/blobs/")] == asked


async def test_a_device_in_a_trial_refuses_and_a_deployment_ends_a_measurement(
    service: FakeService, tmp_path: Path
) -> None:
    toy, slow = make(), make("2.0.0", behaviour="hang early")
    newest = make("3.0.0", padding=5)
    service.add(toy)
    service.add(slow)
    service.add(newest)
    async with running(tmp_path / "dev", service, detected=SEEN) as agent:
        agent.offer(service.envelope(service.wish(toy, trial_seconds=1.5)))
        await agent.until(lambda: agent.now.step.value == "trial", "the trial")
        command(agent, service, order(toy))
        await agent.until(lambda: len(results(agent)) == 1, "a refusal")
        reason = results(agent)[0].reason
        assert reason is not None
        assert (results(agent)[0].state, reason.code) == ("refused", "busy")
        await agent.until(lambda: not agent.supervisor._lifecycle.busy, "the end of the trial")
        command(agent, service, order(slow, cid="c0ffee0124", seconds=60.0, runs=9000))
        await agent.until(lambda: agent.supervisor._bencher._bench.book.knows("c0ffee0124"), "its beginning")
        await asyncio.sleep(0.5)
        agent.offer(service.envelope(service.wish(newest)))
        await agent.until(lambda: len(results(agent)) == 2, "the end of the measurement")
        reason = results(agent)[1].reason
        assert reason is not None
        assert (results(agent)[1].state, reason.code) == ("failed", "interrupted")


async def test_a_broker_gone_bad_is_met_with_silence(service: FakeService, tmp_path: Path) -> None:
    toy = make()
    service.add(toy)
    stranger = CryptoSigner.generate_ed25519()
    async with running(tmp_path / "dev", service, detected=SEEN) as agent:
        bencher = agent.supervisor._bencher
        bencher.offer("c0ffee0123", b"{")
        bencher.offer("another0000", signed(service, order(toy)))
        await agent.until(lambda: agent.codes == ["malformed", "malformed"], "two refusals")
        for number in range(5):
            forged = order(toy, cid=f"forged{number:04d}")
            bencher.offer(forged.cid, signed(service, forged, stranger))
            await asyncio.sleep(0.3)
        await agent.until(lambda: "unknown_key" in agent.codes, "a third refusal")
        assert agent.codes.count("unknown_key") < 5
        assert results(agent) == []


async def test_an_order_under_way_at_a_power_cut_is_told_after_it_and_not_run_again(
    service: FakeService, tmp_path: Path
) -> None:
    toy = make()
    service.add(toy)
    home = Home(path=tmp_path / "dev")
    (home.state).mkdir(parents=True)
    interrupted = order(toy)
    BenchBook(home.state).take(interrupted, now=time.time())
    async with running(home.path, service, detected=SEEN) as agent:
        await agent.until(lambda: len(results(agent)) == 1, "what became of it")
        [result] = results(agent)
        assert result.reason is not None
        assert (result.cid, result.reason.code) == (interrupted.cid, "restarted")
        command(agent, service, interrupted)
        await agent.until(lambda: "replayed" in agent.codes, "the refusal of a replay")
        assert len(results(agent)) == 1


async def test_the_measuring_process_ends_with_its_agent(service: FakeService, tmp_path: Path) -> None:
    toy = make(behaviour="hang early")
    service.add(toy)
    request = {
        "folder": str(tmp_path),
        "variant": toy.variant.id,
        "runtime": PLACES["litert"],
        "runs": 5,
        "seconds": 60,
        "threads": 1,
        "memory_mb": 1000,
    }
    (tmp_path / "package.json").write_bytes(toy.manifest.to_bytes())
    for item in (*toy.variant.files, toy.variant.probe.file if toy.variant.probe else None):
        assert item is not None
        place = tmp_path / item.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(toy.blobs[item.sha256])
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "edgekit_agent.bench_child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(request).encode() + b"\n")
    await asyncio.sleep(1.0)
    assert child.returncode is None
    child.stdin.close()
    assert await asyncio.wait_for(child.wait(), 5) == 1


def test_what_the_system_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("_THERMAL", "_CPUS", "_FIRMWARE"):
        monkeypatch.setattr(bench_child, name, tmp_path / "none")
    found = bench_child.Machine().since()
    assert found["temperature_c"] is None
    assert found["throttled"] is None
    (tmp_path / "throttled").write_text("0x50004\n")
    monkeypatch.setattr(bench_child, "_FIRMWARE", tmp_path / "throttled")
    assert bench_child.Machine().since()["throttled"] is True


# by file -----------------------------------------------------------------------------------------


def bundle(path: Path, service: FakeService, *envelopes: bytes) -> Path:
    """A request file as the fleet makes it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(ORDERS, json.dumps({"schema": 1, "orders": [json.loads(e) for e in envelopes]}))
        for name, data in service.repo.files.items():
            archive.writestr(f"tuf/{name}", data)
        for sha, data in service.blobs.items():
            archive.writestr(f"blobs/sha256/{sha}", data)
    return path


def test_a_device_without_a_network_measures_from_a_file(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = make()
    service.add(toy)
    home, _ = make_home(tmp_path / "dev", service)
    monkeypatch.setattr("edgekit_agent.bench_file.detect", lambda config: SEEN)
    request = bundle(tmp_path / "request", service, signed(service, order(toy)))
    before = len(service.log)
    found = run_file(home, request, tmp_path / "result")
    assert [result.state for result in found.results] == ["done"]
    assert len(service.log) == before
    envelope = Envelope.parse((tmp_path / "result").read_bytes())
    assert BenchResults.from_dict(envelope.signed) == found
    key = bytes.fromhex(service.enrolled[-1].public_key) if service.enrolled else b""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = bytes.fromhex(envelope.signatures[0].sig)
    Ed25519PublicKey.from_public_bytes(key).verify(signature, CONTEXT + envelope.payload())
    with pytest.raises(VerificationError):
        run_file(home, request, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    more = (signed(service, order(toy, cid=cid)) for cid in ("c0ffee0123", "c0ffee0124"))
    rest = run_file(home, bundle(tmp_path / "more", service, *more), tmp_path / "rest")
    assert [result.cid for result in rest.results] == ["c0ffee0124"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_a_file_that_is_no_request_is_named(service: FakeService, tmp_path: Path, content: bytes) -> None:
    home, _ = make_home(tmp_path / "dev", service)
    (tmp_path / "request").write_bytes(content)
    with pytest.raises(ConfigError, match="no request"):
        run_file(home, tmp_path / "request", tmp_path / "out")


def test_a_tampered_variant_in_a_file_is_refused(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = make()
    service.add(toy)
    home, _ = make_home(tmp_path / "dev", service)
    monkeypatch.setattr("edgekit_agent.bench_file.detect", lambda config: SEEN)
    service.blobs = {sha: data[:-1] + b"!" for sha, data in service.blobs.items()}
    request = bundle(tmp_path / "request", service, signed(service, order(toy)))
    [result] = run_file(home, request, tmp_path / "result").results
    assert result.reason is not None
    assert (result.state, result.reason.code) == ("failed", "hash_mismatch")
