"""The power goes at every write of the journal: what serves after the boot, and where it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.documents import DeviceStep
from edgekit_agent.journal import Journal
from tests.agent.harness import make_home
from tests.conftest import REPOSITORY
from tests.simulators import toy_model
from tests.simulators.service import FakeService

STEPS = [
    DeviceStep.DOWNLOADING,
    DeviceStep.VERIFYING,
    DeviceStep.PREPARING,
    DeviceStep.PROBING,
    DeviceStep.TRIAL,
    DeviceStep.COMMITTED,
]


class Device:
    """A device whose power can be cut."""

    def __init__(self, folder: Path, service: FakeService) -> None:
        self.folder, self.service = folder, service
        self.home, _ = make_home(folder, service)

    def run(
        self, *envelopes: bytes, cut: DeviceStep | None = None, when: str = "after"
    ) -> tuple[list[list[str]], int]:
        """One life of the agent: what it said, and how it ended."""
        command = [sys.executable, "-m", "tests.agent.power_cut_agent", str(self.folder), self.service.url]
        done = subprocess.run(
            [*command, cut.value if cut else "none", when],
            input=b"".join(envelope + b"\n" for envelope in envelopes),
            capture_output=True,
            cwd=REPOSITORY,
            timeout=60,
            check=False,
        )
        said = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode in (0, -9), done.stderr.decode()
        return said, done.returncode

    def serves_at_boot(self) -> str:
        """What serves right after a boot that gets no news."""
        said, code = self.run()
        assert code == 0
        return next(entry[1] for entry in said if entry[0] == "started")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_power_loss_at_each_step_leaves_one_whole_model_and_ends_where_the_table_says(
    tmp_path: Path, service: FakeService, step: DeviceStep, when: str
) -> None:
    device = Device(tmp_path, service)
    old, new = toy_model.make(), toy_model.make("2.0.0", toy_model.GOOD * 2)
    service.add(old)
    service.add(new)
    device.run(service.envelope(service.wish(old)))
    envelope = service.envelope(service.wish(new))
    _, code = device.run(envelope, cut=step, when=when)
    assert code == -9, "the power went"

    said, code = device.run(envelope)
    assert code == 0
    at_boot = next(entry[1] for entry in said if entry[0] == "started")
    end = said[-1]
    was_committed = step is DeviceStep.COMMITTED and when == "after"
    in_trial = (step, when) in ((DeviceStep.TRIAL, "after"), (DeviceStep.COMMITTED, "before"))
    assert at_boot == ("toy@2.0.0" if was_committed else "toy@1.0.0")
    if in_trial:
        assert end == ["done", "reverted", "toy@1.0.0"], "a model that was on trial is not tried again"
    elif was_committed:
        assert end[1:] == ["already_current", "toy@2.0.0"] or end[1:] == ["committed", "toy@2.0.0"]
    else:
        assert end == ["done", "committed", "toy@2.0.0"], "it goes on and ends well"


@pytest.mark.slow
def test_a_model_that_kills_the_agent_is_given_up_and_the_old_one_serves(
    tmp_path: Path, service: FakeService
) -> None:
    device = Device(tmp_path, service)
    old, deadly = toy_model.make(), toy_model.make("2.0.0", behaviour="crash")
    service.add(old)
    service.add(deadly)
    device.run(service.envelope(service.wish(old)))
    envelope = service.envelope(service.wish(deadly))
    assert device.run(envelope)[1] == -9
    assert device.run(envelope)[1] == -9, "once more"
    said, code = device.run(envelope)
    assert code == 0, "and then no more"
    assert said[-1] == ["done", "failed", "toy@1.0.0"]
    assert ["event", "failed", "crashed_while_loading"] in said
    later = toy_model.make("3.0.0", toy_model.GOOD * 3)
    service.add(later)
    said, code = device.run(service.envelope(service.wish(later)))
    assert said[-1] == ["done", "committed", "toy@3.0.0"], "a newer release is tried as usual"


@pytest.mark.slow
def test_a_first_model_cut_in_its_trial_leaves_an_empty_slot_and_can_be_sent_again(
    tmp_path: Path, service: FakeService
) -> None:
    device = Device(tmp_path, service)
    toy = toy_model.make()
    service.add(toy)
    assert device.run(service.envelope(service.wish(toy)), cut=DeviceStep.TRIAL)[1] == -9
    assert device.serves_at_boot() == ""
    said, _ = device.run(service.envelope(service.wish(toy)))
    assert said[-1] == ["done", "committed", "toy@1.0.0"]


@pytest.mark.slow
def test_an_accepted_document_is_finished_after_a_boot_without_a_broker(
    tmp_path: Path, service: FakeService
) -> None:
    device = Device(tmp_path, service)
    toy = toy_model.make()
    service.add(toy)
    device.run(service.envelope(service.wish(toy)), cut=DeviceStep.DOWNLOADING)
    journal = Journal(device.home.state / "agent.db")
    assert journal.get("envelope")
    journal.close()
    command = [
        sys.executable,
        "-m",
        "tests.agent.power_cut_agent",
        str(tmp_path),
        service.url,
        "none",
        "after",
    ]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    for line in child.stdout:
        if json.loads(line)[1] == "committed":
            break
    child.stdin.close()
    child.stdout.close()
    assert child.wait(timeout=20) == 0
