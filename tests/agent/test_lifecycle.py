"""The swap in one process: real store, journal, trust child and model host, a service with faults."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.documents import DeviceStep, ProbePolicy
from edgekit.errors import StorageError
from edgekit_agent.config import Home
from edgekit_agent.errors import ModelError
from edgekit_agent.journal import Journal
from edgekit_agent.swap import CRASHES_BEFORE_REVERT
from tests.agent.harness import CONFIG, Agent, make_home, running
from tests.conftest import FrozenClock
from tests.simulators import toy_model
from tests.simulators.service import FakeService

GOOD_WAY = [
    DeviceStep.ACCEPTED,
    DeviceStep.DOWNLOADING,
    DeviceStep.VERIFYING,
    DeviceStep.PREPARING,
    DeviceStep.PROBING,
    DeviceStep.TRIAL,
    DeviceStep.COMMITTED,
]


def answers(agent: Agent) -> list[int]:
    """Classes the slot answers to the samples."""
    inputs, _ = toy_model.samples(3)
    prediction = agent.supervisor.host.infer("toy", {"x": inputs})
    return [int(row.argmax()) for row in prediction.outputs["y"]]


async def test_the_whole_way_from_a_document_to_a_committed_model(
    tmp_path: Path, service: FakeService
) -> None:
    toy = toy_model.make()
    service.add(toy)
    truth = service.add_probes(toy_model.truth_npz())
    async with running(tmp_path, service) as agent:
        report = await agent.install(service.envelope(service.wish(toy, truth=truth)), 1)
        assert agent.steps == GOOD_WAY
        assert report.slots["toy"].release == "toy@1.0.0"
        assert answers(agent) == [0, 1, 2]
        probes = [record for record in agent.telemetry() if record["record"] == "probe"]
        assert [(item["probe"], item["passed"], item.get("baseline")) for item in probes] == [
            ("package", True, None),
            ("truth", True, None),
        ]


async def test_a_wrong_model_never_serves_under_enforce(tmp_path: Path, service: FakeService) -> None:
    good, wrong = toy_model.make(), toy_model.make("2.0.0", toy_model.WRONG)
    service.add(good)
    service.add(wrong)
    truth = service.add_probes(toy_model.truth_npz())
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        report = await agent.install(service.envelope(service.wish(wrong, truth=truth)), 2)
        assert report.step is DeviceStep.REVERTED
        assert report.reason is not None
        assert report.reason.code == "truth_probe_failed"
        assert DeviceStep.TRIAL not in agent.steps[len(GOOD_WAY) :]
        assert answers(agent) == [0, 1, 2]
        probe = next(item for item in agent.telemetry() if item.get("target"))
        assert probe["right"].count("1") == 4
        assert probe["baseline"] == "1" * 12, "the incumbent ran the same items"
        assert probe["baseline_digest"] == good.variant.digest


async def test_a_wrong_model_serves_under_observe_and_is_reported(
    tmp_path: Path, service: FakeService
) -> None:
    good, wrong = toy_model.make(), toy_model.make("2.0.0", toy_model.WRONG)
    service.add(good)
    service.add(wrong)
    truth = replace(service.add_probes(toy_model.truth_npz()), policy=ProbePolicy.OBSERVE)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        report = await agent.install(service.envelope(service.wish(wrong, truth=truth)), 2)
        assert report.step is DeviceStep.COMMITTED
        probe = next(item for item in agent.telemetry() if item.get("target"))
        assert (probe["passed"], probe["policy"]) == (False, "observe")
        assert answers(agent) == [2, 1, 0]


async def test_a_model_this_device_computes_otherwise_never_serves(
    tmp_path: Path, service: FakeService
) -> None:
    off = toy_model.make(probe_weights=toy_model.WRONG)
    service.add(off)
    async with running(tmp_path, service) as agent:
        report = await agent.install(service.envelope(service.wish(off)), 1)
        assert report.step is DeviceStep.REVERTED
        assert agent.codes[-1] == "package_probe_failed"
        assert agent.supervisor.host.active("toy") is None


async def test_a_rollback_needs_no_download(tmp_path: Path, service: FakeService) -> None:
    first, second = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(first)
    service.add(second)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(first)), 1)
        await agent.install(service.envelope(service.wish(second)), 2)
        service.log.clear()
        service.refuse["/blobs/"] = (503, {})
        report = await agent.install(service.envelope(service.wish(first)), 3)
        assert report.step is DeviceStep.COMMITTED
        assert report.slots["toy"].release == "toy@1.0.0"
        assert not [path for path, _ in service.log if path.startswith("/blobs/")]


async def test_what_no_slot_needs_is_removed_from_the_disk(tmp_path: Path, service: FakeService) -> None:
    models = [toy_model.make(f"{n}.0.0", toy_model.GOOD * n) for n in (1, 2, 3)]
    async with running(tmp_path, service) as agent:
        for gen, toy in enumerate(models, start=1):
            service.add(toy)
            await agent.install(service.envelope(service.wish(toy)), gen)
        await agent.until(
            lambda: len(list((tmp_path / "store" / "packages").iterdir())) == 2, "the oldest is gone"
        )
        kept = {path.name for path in (tmp_path / "store" / "packages").iterdir()}
        assert kept == {toy.manifest.digest.removeprefix("sha256:") for toy in models[1:]}
        needed = {sha for toy in models[1:] for sha in toy.blobs}
        blobs = tmp_path / "store" / "blobs"
        # The package goes first, then what only it needed.
        await agent.until(
            lambda: {path.name for path in blobs.iterdir()} == needed, "only what is needed is left"
        )


async def test_the_same_bytes_under_a_new_name_are_already_current(
    tmp_path: Path, service: FakeService
) -> None:
    first, renamed = toy_model.make(), toy_model.make("1.0.1")
    assert first.variant.digest == renamed.variant.digest
    service.add(first)
    service.add(renamed)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(first)), 1)
        serving = agent.supervisor.host.active("toy")
        report = await agent.install(service.envelope(service.wish(renamed)), 2)
        assert report.step is DeviceStep.CURRENT
        assert report.slots["toy"].release == "toy@1.0.1"
        assert agent.supervisor.host.active("toy") is serving, "nothing was loaded"
        assert serving is not None
        assert serving.installed.ref == "toy@1.0.1"
    async with running(tmp_path, service) as agent:
        assert answers(agent) == [0, 1, 2]


async def test_a_newer_document_supersedes_one_that_is_being_installed(
    tmp_path: Path, service: FakeService
) -> None:
    slow, good = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(slow)
    service.add(good)
    async with running(tmp_path, service) as agent:
        agent.offer(service.envelope(service.wish(slow, trial_seconds=60.0)))
        await agent.until(lambda: agent.now.step is DeviceStep.TRIAL, "the trial begins")
        report = await agent.install(service.envelope(service.wish(good)), 2)
        assert DeviceStep.SUPERSEDED in agent.steps
        assert report.slots["toy"].release == "toy@2.0.0"


async def test_a_forged_document_does_not_stop_an_installation(tmp_path: Path, service: FakeService) -> None:
    from securesystemslib.signer import CryptoSigner

    toy = toy_model.make()
    service.add(toy)
    async with running(tmp_path, service) as agent:
        agent.offer(service.envelope(service.wish(toy, trial_seconds=1.5)))
        await agent.until(lambda: agent.now.step is DeviceStep.TRIAL, "the trial begins")
        forged = service.repo.sign(service.desire(service.wish(toy)), signer=CryptoSigner.generate_ed25519())
        agent.offer(forged.to_bytes())
        await agent.until(lambda: "unknown_key" in agent.codes, "the forgery is reported")
        assert agent.now.gen == 1, "nothing a forger wrote is reported as a step"
        await agent.until(lambda: agent.now.step is DeviceStep.COMMITTED, "the genuine one ends well")


async def test_a_replay_after_a_newer_document_changes_nothing(tmp_path: Path, service: FakeService) -> None:
    toy, newer = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(toy)
    service.add(newer)
    async with running(tmp_path, service) as agent:
        old = service.envelope(service.wish(toy))
        await agent.install(old, 1)
        await agent.install(service.envelope(service.wish(newer)), 2)
        agent.offer(old)
        await agent.until(lambda: "replayed" in agent.codes, "the replay is reported")
        assert agent.now.step is DeviceStep.COMMITTED
        assert agent.now.slots["toy"].release == "toy@2.0.0"


async def test_a_second_document_of_the_same_gen_must_say_the_same(
    tmp_path: Path, service: FakeService
) -> None:
    toy, other = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(toy)
    service.add(other)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
        service.gen = 0
        agent.offer(service.envelope(service.wish(other), issued=1_790_000_001.0))
        await agent.until(lambda: "gen_conflict" in agent.codes, "the conflict is reported")
        assert agent.now.slots["toy"].release == "toy@1.0.0"


async def test_the_same_document_again_is_answered_and_not_done_again(
    tmp_path: Path, service: FakeService
) -> None:
    toy = toy_model.make()
    service.add(toy)
    async with running(tmp_path, service) as agent:
        envelope = service.envelope(service.wish(toy))
        await agent.install(envelope, 1)
        await agent.until(lambda: not agent.supervisor._lifecycle.busy, "it is over")
        seq, requests = agent.now.seq, len(service.log)
        agent.offer(envelope)
        await agent.until(lambda: agent.now.seq > seq, "reported again")
        assert len(service.log) == requests
        assert agent.now.step is DeviceStep.COMMITTED


async def test_an_invalidated_release_goes_on_serving_and_is_never_installed_again(
    tmp_path: Path, service: FakeService
) -> None:
    toy, next_one = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(toy)
    service.add(next_one)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
        service.repo.remove_target("packages/toy/1.0.0/package.json")
        service.repo.publish()
        assert answers(agent) == [0, 1, 2]
        await agent.install(service.envelope(service.wish(next_one)), 2)
        report = await agent.install(service.envelope(service.wish(toy)), 3)
        assert report.step is DeviceStep.REJECTED
        assert agent.codes[-1] == "target_missing"
        assert report.slots["toy"].release == "toy@2.0.0"


async def test_a_model_for_another_device_is_rejected_by_the_device_itself(
    tmp_path: Path, service: FakeService
) -> None:
    toy = toy_model.make(runtime="coreml")
    service.add(toy)
    async with running(tmp_path, service) as agent:
        report = await agent.install(service.envelope(service.wish(toy)), 1)
        assert report.step is DeviceStep.REJECTED
        assert agent.codes[-1] == "incompatible"
        assert not [path for path, _ in service.log if path.startswith("/blobs/")]


async def test_a_model_that_cannot_be_loaded_fails_and_the_old_one_serves(
    tmp_path: Path, service: FakeService
) -> None:
    good, bad = toy_model.make(), toy_model.make("2.0.0", behaviour="refuse")
    service.add(good)
    service.add(bad)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        report = await agent.install(service.envelope(service.wish(bad)), 2)
        assert report.step is DeviceStep.FAILED
        assert agent.codes[-1] == "load_failed"
        assert answers(agent) == [0, 1, 2]


async def test_a_model_that_breaks_in_its_trial_is_taken_back(tmp_path: Path, service: FakeService) -> None:
    good, bad = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2, behaviour="fail")
    service.add(good)
    service.add(bad)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        agent.offer(service.envelope(service.wish(bad, trial_seconds=30.0)))
        await agent.until(lambda: agent.now.step is DeviceStep.TRIAL, "the trial begins")
        await agent.until(lambda: _try(agent) or agent.now.step.terminal, "it breaks")
        await agent.until(lambda: agent.now.step is DeviceStep.REVERTED, "the watchdog takes it back")
        assert agent.codes[-1] == "trial_errors"
        assert answers(agent) == [0, 1, 2]


def _try(agent: Agent) -> bool:
    """One request; never True."""
    with contextlib.suppress(ModelError):
        answers(agent)
    return False


async def test_a_missing_blob_fails_the_step_and_the_incumbent_serves(
    tmp_path: Path, service: FakeService
) -> None:
    good, bad = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(good)
    service.add(bad)
    for sha in bad.blobs:
        service.blobs.pop(sha, None)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        report = await agent.install(service.envelope(service.wish(bad)), 2)
        assert report.step is DeviceStep.FAILED
        assert agent.codes[-1] == "blob_missing"
        assert answers(agent) == [0, 1, 2]


async def test_a_full_disk_fails_the_download_and_loses_nothing(tmp_path: Path, service: FakeService) -> None:
    good, bad = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(good)
    service.add(bad)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
    tight = replace(CONFIG, limits=replace(CONFIG.limits, free_mb=1 << 40))
    async with running(tmp_path, service, config=tight) as agent:
        assert answers(agent) == [0, 1, 2]
        report = await agent.install(service.envelope(service.wish(bad)), 2)
        assert report.step is DeviceStep.FAILED
        assert report.reason is not None
        assert (report.reason.code, report.reason.retryable) == ("disk_full", True)
        assert answers(agent) == [0, 1, 2]


async def test_a_journal_that_cannot_be_written_stops_the_swap_before_it_serves(
    tmp_path: Path, service: FakeService
) -> None:
    from edgekit.errors import StorageError
    from edgekit_agent.journal import Attempt, SlotRecord

    class FullDisk(Journal):
        full = False

        def settle(self, attempt: Attempt, record: SlotRecord) -> None:
            if self.full:
                raise StorageError("no space left", code="disk_full")
            super().settle(attempt, record)

    good, bad = toy_model.make(), toy_model.make("2.0.0", toy_model.WRONG)
    service.add(good)
    service.add(bad)
    journals: list[FullDisk] = []

    def make(home: Home) -> Journal:
        journals.append(FullDisk(home.state / "agent.db"))
        return journals[-1]

    async with running(tmp_path, service, make_journal=make) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        journals[0].full = True
        report = await agent.install(service.envelope(service.wish(bad)), 2)
        assert report.step is DeviceStep.REVERTED
        assert agent.codes[-1] == "disk_full"
        assert answers(agent) == [0, 1, 2]
        journals[0].full = False


async def test_the_service_down_is_waited_for(tmp_path: Path, service: FakeService) -> None:
    toy = toy_model.make()
    service.add(toy)
    service.refuse["/tuf/"] = (503, {})
    async with running(tmp_path, service) as agent:
        agent.offer(service.envelope(service.wish(toy)))
        await agent.until(lambda: "unreachable" in agent.codes, "it says that it waits")
        assert agent.now.step is DeviceStep.ACCEPTED
        service.refuse.clear()
        await agent.until(lambda: agent.now.step is DeviceStep.COMMITTED, "it goes on by itself")


async def test_a_1970_clock_installs_nothing_and_serves_on_and_catches_up(
    tmp_path: Path, service: FakeService, monkeypatch: object
) -> None:
    import time

    from edgekit_agent import lifecycle

    good, newer = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(good)
    service.add(newer)
    now = time.time()
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good), issued=now), 1)
    clock = FrozenClock(wall=1000.0)
    monkeypatch.setattr(lifecycle, "_CLOCK_SECONDS", 0.05)  # type: ignore[attr-defined]  # pytest's
    async with running(tmp_path, service, clock=clock) as agent:
        assert answers(agent) == [0, 1, 2], "it serves"
        requests = len(service.log)
        agent.offer(service.envelope(service.wish(newer), issued=now + 10))
        await agent.until(lambda: "clock_before_floor" in agent.codes, "it says why")
        assert agent.now.clock_ok is False
        assert agent.now.reason is not None
        assert agent.now.reason.retryable
        assert not agent.now.step.terminal
        await asyncio.sleep(0.3)
        assert len(service.log) == requests, "nothing was fetched"
        assert answers(agent) == [0, 1, 2]
        clock.jump(now + 20)
        await agent.until(lambda: agent.now.step is DeviceStep.TRIAL, "the clock is right, it goes on")
        clock.advance(10)
        await agent.until(lambda: agent.now.step is DeviceStep.COMMITTED, "and commits")
        assert agent.now.clock_ok is True


async def test_a_clock_before_the_agents_own_build_time_installs_nothing(
    tmp_path: Path, service: FakeService
) -> None:
    toy = toy_model.make()
    service.add(toy)
    async with running(tmp_path, service, clock=FrozenClock(wall=1e9), built=1.7e9) as agent:
        agent.offer(service.envelope(service.wish(toy)))
        await agent.until(lambda: "clock_before_floor" in agent.codes, "it says why")
        assert service.log == []


async def test_a_damaged_active_model_gives_way_to_its_previous(tmp_path: Path, service: FakeService) -> None:
    first, second = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(first)
    service.add(second)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(first)), 1)
        await agent.install(service.envelope(service.wish(second)), 2)
    folder = tmp_path / "store" / "packages" / second.manifest.digest.removeprefix("sha256:")
    model = folder / second.variant.files[0].path
    model.write_bytes(b"\0" + model.read_bytes()[1:])
    async with running(tmp_path, service) as agent:
        assert answers(agent) == [0, 1, 2]
        assert agent.now.step is DeviceStep.REVERTED
        assert agent.now.slots["toy"].release == "toy@1.0.0"


async def test_a_damaged_only_model_is_fetched_again_and_nothing_is_claimed_meanwhile(
    tmp_path: Path, service: FakeService
) -> None:
    toy = toy_model.make()
    service.add(toy)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
    folder = tmp_path / "store" / "packages" / toy.manifest.digest.removeprefix("sha256:")
    model = folder / toy.variant.files[0].path
    model.write_bytes(b"\0" + model.read_bytes()[1:])  # the blob too: it is one file with two names
    async with running(tmp_path, service) as agent:
        await agent.until(lambda: agent.now.step is DeviceStep.COMMITTED, "fetched and committed again")
        assert answers(agent) == [0, 1, 2]
        assert agent.now.slots["toy"].release == "toy@1.0.0"
        assert agent.codes[0] == "hash_mismatch"


async def test_a_release_that_was_taken_back_is_nothing_to_fall_back_to(
    tmp_path: Path, service: FakeService
) -> None:
    good, bad = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(good)
    service.add(bad)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        await agent.install(service.envelope(service.wish(bad)), 2)
        await agent.install(service.envelope(service.wish(good)), 3)
        assert agent.now.slots["toy"].previous is None


async def test_a_crash_loop_reverts_by_itself(tmp_path: Path, service: FakeService) -> None:
    first, second = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(first)
    service.add(second)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(first)), 1)
        await agent.install(service.envelope(service.wish(second)), 2)
    home, _ = make_home(tmp_path, service)
    journal = Journal(home.state / "agent.db")
    journal.put(crashes=str(CRASHES_BEFORE_REVERT))
    journal.close()
    async with running(tmp_path, service) as agent:
        assert agent.now.slots["toy"].release == "toy@1.0.0"
        assert agent.now.step is DeviceStep.REVERTED
        assert agent.now.reason is not None
        assert agent.now.reason.code == "crash_loop"
    async with running(tmp_path, service) as agent:
        assert agent.now.slots["toy"].release == "toy@1.0.0"


async def test_a_full_disk_neither_ends_the_watch_over_the_link_nor_spoils_the_end(
    tmp_path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Journal] = []

    def full(journal: Journal) -> None:
        tried.append(journal)
        raise StorageError("database or disk is full")

    monkeypatch.setattr("edgekit_agent.supervisor.boot.lived", full)
    monkeypatch.setattr("edgekit_agent.supervisor._HEALTHY_SECONDS", 0.0)
    async with running(tmp_path, service) as agent:
        await agent.until(lambda: bool(tried), "it tries to note that it lives")
        await asyncio.sleep(0.1)
        assert agent.supervisor.exceptions == 0
    async with running(tmp_path, service):
        assert len(tried) > 1, "the first one ended in order and let go of its home"


async def test_a_slot_that_is_not_wanted_any_more_serves_nothing(
    tmp_path: Path, service: FakeService
) -> None:
    toy = toy_model.make()
    service.add(toy)
    async with running(tmp_path, service) as agent:
        await agent.install(service.envelope(service.wish(toy)), 1)
        report = await agent.install(service.envelope(service.wish(toy), slots={}), 2)
        assert report.step is DeviceStep.CURRENT
        assert report.slots == {}
        assert agent.supervisor.host.active("toy") is None
        await agent.until(lambda: not list((tmp_path / "store" / "blobs").iterdir()), "its files go")


async def test_what_mqtt_does_not_say_is_asked_for_by_http(tmp_path: Path, service: FakeService) -> None:
    toy = toy_model.make()
    service.add(toy)
    service.desired = service.envelope(service.wish(toy))
    async with running(tmp_path, service, config=replace(CONFIG, first_poll_seconds=0.05)) as agent:
        await agent.until(lambda: agent.now.step is DeviceStep.COMMITTED, "it found its document")


async def test_a_broken_answer_to_the_poll_is_survived(tmp_path: Path, service: FakeService) -> None:
    service.desired = b"<html>proxy error</html>"
    async with running(tmp_path, service, config=replace(CONFIG, first_poll_seconds=0.05)) as agent:
        await agent.until(lambda: "unsigned" in agent.codes or "malformed" in agent.codes, "it is refused")
        assert agent.now.step is DeviceStep.IDLE
